"""Constant and address expressions with the GNU assembler's operators and precedence.

Arithmetic is two's complement on 64 bits: ``>>`` is logical, ``/`` and ``%`` truncate towards zero, a true
comparison is -1 and a true ``&&`` or ``||`` is 1 (GNU as manual, "Infix Operators").
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

MAX_DEPTH = 200
_BITS = 64
_TOKEN = re.compile(
    r"\s*(?:(?P<num>0[xX][0-9a-fA-F]+|0[bB][01]+|\d+[bf](?![\w$])|\d+)(?![\w$])|(?P<char>'(?:\\.|.)'?)"
    r"|(?P<name>[A-Za-z_.$][\w.$]*)|(?P<op><<|>>|<=|>=|==|!=|<>|&&|\|\||[-+*/%&|^!~()<>]))"
)
_RANK = {"*": 8, "/": 8, "%": 8, "<<": 8, ">>": 8, "|": 7, "&": 7, "^": 7, "!": 7, "+": 5, "-": 5}
_RANK |= dict.fromkeys(("==", "!=", "<>", "<", "<=", ">", ">="), 4) | {"&&": 3, "||": 2}
_ESCAPES = {"n": 10, "t": 9, "r": 13, "b": 8, "f": 12, "\\": 92, '"': 34, "'": 39}


class ExpressionError(Exception):
    """Raised when an expression cannot be parsed or computed; ``offset`` is where in its text."""

    def __init__(self, what: str, offset: int = 0, hint: str = "") -> None:
        self.what = what
        self.offset = offset
        self.hint = hint
        super().__init__(what)


@dataclass(frozen=True, slots=True)
class Location:
    """A place in the output: ``offset`` bytes into chunk number ``chunk`` of the layout."""

    chunk: int
    offset: int


@dataclass(frozen=True, slots=True)
class Number:
    """A plain number, signed 64 bits."""

    value: int


@dataclass(frozen=True, slots=True)
class Name:
    """A symbol, or a numeric local label under its full name."""

    name: str


@dataclass(frozen=True, slots=True)
class Here:
    """The location counter ``.`` as it stood when the statement was read."""

    location: Location


@dataclass(frozen=True, slots=True)
class Unary:
    """An operator before its operand: ``-``, ``~`` or ``!``."""

    operator: str
    value: Expression


@dataclass(frozen=True, slots=True)
class Binary:
    """An operator between two operands."""

    operator: str
    left: Expression
    right: Expression


Expression = Number | Name | Here | Unary | Binary


def wrap(value: int) -> int:
    """``value`` as a signed 64-bit number."""
    value &= (1 << _BITS) - 1
    return value - (1 << _BITS) if value >> (_BITS - 1) else value


def _number(word: str) -> int:
    if word[:2] in ("0x", "0X"):
        return int(word, 16)
    if word[:2] in ("0b", "0B"):
        return int(word, 2)
    if len(word) > 1 and word[0] == "0":
        if not all(digit in "01234567" for digit in word):
            raise ExpressionError(f"{word} is not an octal number (a leading 0 means octal)")
        return int(word, 8)
    return int(word)


class _Parser:
    """Precedence climbing over the tokens of one expression."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens: list[tuple[str, str, int]] = []
        self.next = 0
        self.depth = 0
        at = 0
        end = len(text.rstrip())
        while at < end:
            found = _TOKEN.match(text, at)
            if found is None or found.lastgroup is None:
                start = at + len(text[at:]) - len(text[at:].lstrip())
                raise ExpressionError(f"cannot read {text[start:].strip()!r} in an expression", start)
            self.tokens.append((found.lastgroup, found.group(found.lastgroup), found.start(found.lastgroup)))
            at = found.end()

    def peek(self) -> str:
        return self.tokens[self.next][1] if self.next < len(self.tokens) else ""

    def offset(self) -> int:
        return self.tokens[self.next][2] if self.next < len(self.tokens) else len(self.text)

    def primary(self) -> Expression:
        if self.next >= len(self.tokens):
            raise ExpressionError("an expression is missing or ends too early", len(self.text))
        kind, word, offset = self.tokens[self.next]
        self.next += 1
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise ExpressionError("the expression is nested too deeply", offset)
        try:
            return self._primary(kind, word, offset)
        finally:
            self.depth -= 1

    def _primary(self, kind: str, word: str, offset: int) -> Expression:
        if kind == "num":
            if word[-1] in "bf" and word[:2] not in ("0x", "0X") and not re.fullmatch(r"0[bB][01]+", word):
                return Name(word)
            value = _number(word)
            if value >> _BITS:
                raise ExpressionError(f"{word} needs more than 64 bits", offset)
            return Number(wrap(value))
        if kind == "char":
            return Number(_ESCAPES.get(word[2], ord(word[2])) if word[1] == "\\" else ord(word[1]))
        if kind == "name":
            return Name(word)
        if word in ("-", "~", "!", "+"):
            value_of = self.primary()
            return value_of if word == "+" else Unary(word, value_of)
        if word == "(":
            inner = self.expression(0)
            if self.peek() != ")":
                raise ExpressionError("')' is missing", self.offset())
            self.next += 1
            return inner
        raise ExpressionError(f"unexpected {word!r} in an expression", offset)

    def expression(self, least: int) -> Expression:
        left = self.primary()
        while (rank := _RANK.get(self.peek(), -1)) > least:
            operator = self.peek()
            self.next += 1
            left = Binary(operator, left, self.expression(rank))
        return left


def parse(text: str) -> Expression:
    """The expression that ``text`` is, whole.

    Raises:
        ExpressionError: with the offset of the token that does not fit.
    """
    parser = _Parser(text)
    result = parser.expression(0)
    if parser.next != len(parser.tokens):
        raise ExpressionError(f"unexpected {parser.peek()!r} after an expression", parser.offset())
    return result


def bind(expression: Expression, named: Callable[[str], Expression | None]) -> Expression:
    """``expression`` with each name that ``named`` knows replaced by its present meaning."""
    match expression:
        case Name(name):
            return named(name) or expression
        case Unary(operator, value):
            return Unary(operator, bind(value, named))
        case Binary(operator, left, right):
            return Binary(operator, bind(left, named), bind(right, named))
    return expression


def names_in(expression: Expression) -> frozenset[str]:
    """Every name that ``expression`` mentions."""
    match expression:
        case Name(name):
            return frozenset((name,))
        case Unary(_, value):
            return names_in(value)
        case Binary(_, left, right):
            return names_in(left) | names_in(right)
    return frozenset()


def degree(expression: Expression) -> int:
    """How often ``expression`` moves with the image: 1 for an address, 0 for a number or a distance."""
    match expression:
        case Name() | Here():
            return 1
        case Unary("-", value):
            return -degree(value)
        case Binary("+", left, right):
            return degree(left) + degree(right)
        case Binary("-", left, right):
            return degree(left) - degree(right)
    return 0


def _divide(left: int, right: int) -> int:
    if right == 0:
        raise ExpressionError("division by zero")
    quotient = abs(left) // abs(right)
    return quotient if (left < 0) == (right < 0) else -quotient


def _shift(left: int, right: int, *, up: bool) -> int:
    if not 0 <= right < _BITS:
        raise ExpressionError(f"shift by {right}")
    return left << right if up else (left & ((1 << _BITS) - 1)) >> right


_COMPUTE: Mapping[str, Callable[[int, int], int]] = {
    "+": lambda a, b: a + b,
    "-": lambda a, b: a - b,
    "*": lambda a, b: a * b,
    "/": _divide,
    "%": lambda a, b: a - b * _divide(a, b),
    "<<": lambda a, b: _shift(a, b, up=True),
    ">>": lambda a, b: _shift(a, b, up=False),
    "&": lambda a, b: a & b,
    "|": lambda a, b: a | b,
    "^": lambda a, b: a ^ b,
    "!": lambda a, b: a | ~b,
    "==": lambda a, b: -(a == b),
    "!=": lambda a, b: -(a != b),
    "<>": lambda a, b: -(a != b),
    "<": lambda a, b: -(a < b),
    "<=": lambda a, b: -(a <= b),
    ">": lambda a, b: -(a > b),
    ">=": lambda a, b: -(a >= b),
    "&&": lambda a, b: int(bool(a) and bool(b)),
    "||": lambda a, b: int(bool(a) or bool(b)),
}


_OF_PLACES = frozenset(("-", "==", "!=", "<>", "<", "<=", ">", ">="))
"""Operators whose result is a plain number for two places in one chunk."""


def _unary(operator: str, value: int) -> int:
    return {"-": -value, "~": ~value, "!": int(value == 0)}[operator]


def evaluate(expression: Expression, address_of: Callable[[str | Location], int]) -> int:
    """The value of ``expression`` as a signed 64-bit number; ``address_of`` gives names and places their addresses."""
    match expression:
        case Number(value):
            return value
        case Name(name):
            return address_of(name)
        case Here(location):
            return address_of(location)
        case Unary(operator, inner):
            return wrap(_unary(operator, evaluate(inner, address_of)))
        case Binary(operator, left, right):
            return wrap(_COMPUTE[operator](evaluate(left, address_of), evaluate(right, address_of)))


@dataclass(frozen=True, slots=True)
class Relative:
    """``value`` bytes on from the start of ``chunk``; a plain number where ``chunk`` is None."""

    value: int
    chunk: int | None = None


def fold(expression: Expression, label: Callable[[str], Location | None]) -> Relative | None:
    """What ``expression`` is known to be before the layout is: a number, a place in a chunk, or None.

    The difference of two labels of one chunk is a number, as in the GNU assembler; across chunks it is not known yet.
    """
    match expression:
        case Number(value):
            return Relative(value)
        case Name(name):
            place = label(name)
            return None if place is None else Relative(place.offset, place.chunk)
        case Here(location):
            return Relative(location.offset, location.chunk)
        case Unary(operator, inner):
            folded = fold(inner, label)
            if folded is None or folded.chunk is not None:
                return None
            return Relative(wrap(_unary(operator, folded.value)))
        case Binary(operator, left, right):
            return _fold_pair(operator, fold(left, label), fold(right, label))


def _fold_pair(operator: str, left: Relative | None, right: Relative | None) -> Relative | None:
    if left is None or right is None:
        return None
    if left.chunk == right.chunk and (left.chunk is None or operator in _OF_PLACES):
        return Relative(wrap(_COMPUTE[operator](left.value, right.value)))
    if operator == "+" and (left.chunk is None or right.chunk is None):
        return Relative(left.value + right.value, left.chunk if right.chunk is None else right.chunk)
    if operator == "-" and right.chunk is None:
        return Relative(left.value - right.value, left.chunk)
    return None
