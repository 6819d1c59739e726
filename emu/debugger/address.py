"""Addresses and numbers as people type them: ``swap_pages+8``, ``p:0x1000``, ``0x10:0x200``, ``my.S:143``, ``$rsp+8``.

Bare numbers and symbols are linear; ``p:`` is physical; ``seg:off`` goes through the segment, by register or selector.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from emu.errors import DebuggerError
from emu.journey.symbols import Symbols
from emu.machine.cpu import GPR_NAMES, SEGMENT_NAMES, Cpu

_TOKEN = re.compile(
    r"\s*(0[xX][0-9a-fA-F]+|0[bB][01]+|\d[\d,_]*|\$?[A-Za-z_.][\w.]*|<<|>>|[=!<>]=|&&|\|\||[-+*/%&|^()~<>!])"
)
_LINE = re.compile(r"^([\w./-]+\.(?:S|s|inc|asm)):(\d+)$")
_SYMBOL = re.compile(r"^([A-Za-z_.][\w.]*)\s*(?:[+-].*)?$")
_SEGMENTED = re.compile(r"^([a-z]s|0[xX][0-9a-fA-F]+|\d+):(?!:)(.+)$")
_32_BIT = {f"e{name[1:]}": name for name in GPR_NAMES[:8]} | {
    "eip": "rip",
    "pc": "rip",
    "sp": "rsp",
    "eflags": "rflags",
}
_16_BIT = {name[1:]: name for name in GPR_NAMES[:8]}


@dataclass(frozen=True, slots=True)
class Address:
    """A physical or linear address."""

    value: int
    physical: bool = False

    def __str__(self) -> str:
        return f"p:{self.value:#x}" if self.physical else f"{self.value:#x}"


def integer(text: str) -> int:
    """A number in decimal (commas allowed), 0x or 0b; raises DebuggerError."""
    digits = text.replace(",", "").replace("_", "")
    if len(digits) > _MOST_DIGITS:
        raise DebuggerError(f"{digits[:8]}... has {len(digits):,} digits", hint=f"at most {_MOST_DIGITS}")
    return int(digits, 0) if digits[:2].lower() in ("0x", "0b") else int(digits)


class Evaluator:
    """Reads expressions against one processor and one set of symbols; raises DebuggerError for what is not one."""

    def __init__(self, cpu: Cpu, symbols: Symbols) -> None:
        self._cpu = cpu
        self._symbols = symbols

    def register(self, name: str) -> int:
        """The value of a register by any of its usual names."""
        wanted = name.lower().removeprefix("$")
        registers = self._cpu.registers()
        if wanted in _32_BIT:
            value = registers[_32_BIT[wanted]]
            return value if wanted in ("pc", "sp") else value & 0xFFFFFFFF
        if wanted in _16_BIT:
            return registers[_16_BIT[wanted]] & 0xFFFF
        if wanted in registers:
            return registers[wanted]
        raise DebuggerError(f"no register is called {name}")

    def address(self, text: str) -> Address:
        """A linear or physical address."""
        text = text.strip()
        text = text.removeprefix("*")
        if text.lower().startswith("p:"):
            return Address(self.number(text[2:]), physical=True)
        line = _LINE.match(text)
        if line is not None:
            return Address(self._line(line.group(1), int(line.group(2))))
        segmented = _SEGMENTED.match(text)
        if segmented is not None:
            return Address(self._segment_base(segmented.group(1)) + self.number(segmented.group(2)))
        return Address(self.number(text))

    def places(self, text: str) -> list[Address]:
        """The address, and every other linear address at which a program shows the same symbol or source line."""
        first = self.address(text)
        if first.physical:
            return [first]
        line = _LINE.match(text.strip())
        if line is not None:
            found = self._symbols.addresses_of(line.group(1), int(line.group(2)))
        else:
            symbol = _SYMBOL.match(text.strip().removeprefix("*"))
            named = self._symbols.all_addresses_of(symbol.group(1)) if symbol is not None else []
            here = self._symbols.address_of(symbol.group(1), self._cpu.pc) if symbol is not None else None
            found = [] if here is None else [one - here + first.value for one in named]
        return [first, *(Address(one) for one in found if one != first.value)]

    def _line(self, file: str, line: int) -> int:
        found = self._symbols.addresses_of(file, line)
        if not found:
            raise DebuggerError(f"no code comes from {file}:{line}")
        return found[0]

    def _segment_base(self, name: str) -> int:
        if name in SEGMENT_NAMES:
            return self._cpu.segment(SEGMENT_NAMES.index(name)).base
        selector = integer(name)
        if not self._cpu.cr0 & 1:
            return selector << 4
        raw = self._cpu.peek(self._cpu.gdtr.base + (selector & ~7), 8)
        if raw is None or selector & 4:
            raise DebuggerError(f"selector {selector:#x} has no descriptor that can be read")
        value = int.from_bytes(raw, "little")
        return value >> 16 & 0xFFFFFF | value >> 56 << 24

    def number(self, text: str) -> int:
        """An integer expression of numbers, ``$registers``, symbols, parentheses and C's operators on integers.

        ``*ADDRESS`` is the word of the present mode at a linear address.
        """
        tokens = self._tokens(text)
        parser = _Parser(tokens, self)
        value = parser.expression(0)
        if parser.at < len(tokens):
            raise DebuggerError(f"unexpected {tokens[parser.at]!r} in {text!r}")
        return value

    def _tokens(self, text: str) -> list[str]:
        tokens, at = [], 0
        while at < len(text.rstrip()):
            match = _TOKEN.match(text, at)
            if match is None:
                raise DebuggerError(f"cannot read {text[at:].strip()!r} in {text!r}")
            tokens.append(match.group(1))
            at = match.end()
        if not tokens:
            raise DebuggerError("an address or number is wanted here")
        return tokens

    def word_at(self, linear: int) -> int:
        """The word of the present mode at a linear address; raises DebuggerError where nothing is mapped."""
        size = self._cpu.bits // 8
        raw = self._cpu.peek(linear, size) or b""
        if len(raw) < size:
            raise DebuggerError(f"{linear:#x} is not mapped here", hint="walk shows why")
        return int.from_bytes(raw, "little")

    def atom(self, token: str) -> int:
        """A number, register or symbol."""
        if token[0].isdigit():
            return integer(token)
        if token.startswith("$"):
            return self.register(token)
        linear = self._symbols.address_of(token, self._cpu.pc)
        if linear is None:
            raise DebuggerError(f"no symbol is called {token}", hint="registers are written $rax")
        return linear


_BINARY = {
    "||": 1, "&&": 2, "|": 3, "^": 4, "&": 5, "==": 6, "!=": 6, "<": 7, ">": 7, "<=": 7, ">=": 7, "<<": 8, ">>": 8,
    "+": 9, "-": 9, "*": 10, "/": 10, "%": 10,
}  # fmt: skip
_DEEPEST = 100
_MOST_DIGITS = 1000


class _Parser:
    """Precedence climbing over tokens."""

    def __init__(self, tokens: list[str], evaluator: Evaluator) -> None:
        self._tokens = tokens
        self._evaluator = evaluator
        self.at = 0
        self._depth = 0

    def _enter(self) -> None:
        self._depth += 1
        if self._depth > _DEEPEST:
            raise DebuggerError("the expression is nested too deep")

    def expression(self, least: int) -> int:
        left = self._unary()
        while self.at < len(self._tokens) and _BINARY.get(self._tokens[self.at], 0) > least:
            operator = self._tokens[self.at]
            self.at += 1
            left = self._apply(operator, left, self.expression(_BINARY[operator]))
        return left

    def _unary(self) -> int:
        if self.at >= len(self._tokens):
            raise DebuggerError("the expression ends too early")
        word = self._tokens[self.at]
        self.at += 1
        if word in ("-", "~", "+", "!", "*"):
            self._enter()
            value = self._unary()
            self._depth -= 1
            if word == "*":
                return self._evaluator.word_at(value)
            return {"-": -value, "~": ~value, "+": value, "!": int(not value)}[word]
        if word == "(":
            self._enter()
            value = self.expression(0)
            self._depth -= 1
            if self.at >= len(self._tokens) or self._tokens[self.at] != ")":
                raise DebuggerError("a closing parenthesis is missing")
            self.at += 1
            return value
        if word in _BINARY or word == ")":
            raise DebuggerError(f"unexpected {word!r}")
        return self._evaluator.atom(word)

    def _apply(self, operator: str, left: int, right: int) -> int:
        if operator in ("/", "%") and right == 0:
            raise DebuggerError("division by zero")
        if operator in ("<<", ">>") and not 0 <= right < 128:
            raise DebuggerError(f"a shift by {right}")
        results = {
            "+": lambda: left + right,
            "-": lambda: left - right,
            "*": lambda: left * right,
            "/": lambda: left // right,
            "%": lambda: left % right,
            "&": lambda: left & right,
            "|": lambda: left | right,
            "^": lambda: left ^ right,
            "<<": lambda: left << right,
            ">>": lambda: left >> right,
            "==": lambda: int(left == right),
            "!=": lambda: int(left != right),
            "<": lambda: int(left < right),
            ">": lambda: int(left > right),
            "<=": lambda: int(left <= right),
            ">=": lambda: int(left >= right),
            "&&": lambda: int(bool(left) and bool(right)),
            "||": lambda: int(bool(left) or bool(right)),
        }
        return results[operator]()
