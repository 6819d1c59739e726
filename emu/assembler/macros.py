"""Macro definitions, their arguments, and substitution (GNU as manual, "Macro")."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

from emu.assembler.source import Statement, split_outside, strip_piece

_PARAMETER = re.compile(
    r"(?P<name>[A-Za-z_$.][\w$.]*)(?::(?P<kind>req|vararg))?(?:\s*=\s*(?P<default>.*))?$", re.DOTALL
)
_NAMED = re.compile(r"(?P<name>[A-Za-z_$.][\w$.]*)\s*=(?!=)\s*(?P<value>.*)$", re.DOTALL)
_REFERENCE = re.compile(r"\\(?:(?P<unit>\(\))|(?P<count>@)|(?P<name>[A-Za-z_$.][\w$.]*))")
_AROUND_OPERATOR = re.compile(r"\s*(<<|>>|<=|>=|==|!=|&&|\|\||[-+*/|&^<>=!,()])\s*|(\s+)")


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter; ``takes_rest`` is gas's ``:vararg``."""

    name: str
    default: str = ""
    required: bool = False
    takes_rest: bool = False


@dataclass(frozen=True, slots=True)
class Macro:
    """A macro as defined; ``body`` is raw, its parameters not yet replaced."""

    name: str
    parameters: tuple[Parameter, ...]
    body: tuple[Statement, ...]
    defined: Statement


def tighten(text: str) -> str:
    """``text`` with blanks around operators and commas gone and other runs of blanks made one, strings untouched."""
    out: list[str] = []
    at = 0
    for found in re.finditer(r'"(?:\\.|[^"\\])*"', text):
        out += [_AROUND_OPERATOR.sub(_tight, text[at : found.start()]), found.group()]
        at = found.end()
    out.append(_AROUND_OPERATOR.sub(_tight, text[at:]))
    return "".join(out).strip()


def _tight(found: re.Match[str]) -> str:
    return found.group(1) or " "


def _words(text: str) -> list[str]:
    """The arguments of a call: pieces between commas, and between blanks that stand between two words."""
    words: list[str] = []
    for _, piece in split_outside(tighten(text), ",", brackets=True):
        words += [word for _, word in split_outside(piece, " ", brackets=True)]
    return words


def _unquote(word: str) -> str:
    if len(word) > 1 and word[0] == word[-1] == '"':
        return word[1:-1]
    return word


def parse_definition(statement: Statement, text: str, body: Sequence[Statement]) -> Macro:
    """The macro that ``.macro`` with operands ``text`` defines."""
    found = re.match(r"([A-Za-z_$.][\w$.]*)\s*,?\s*(.*)$", text, re.DOTALL)
    if found is None:
        raise statement.error(".macro needs a name")
    parameters: list[Parameter] = []
    for word in _words(found.group(2)) if found.group(2).strip() else []:
        described = _PARAMETER.match(word)
        if described is None:
            raise statement.error(f"cannot read the macro parameter {word!r}")
        kind = described["kind"]
        parameters.append(
            Parameter(described["name"], _unquote(described["default"] or ""), kind == "req", kind == "vararg")
        )
    if len({parameter.name for parameter in parameters}) != len(parameters):
        raise statement.error(f"macro {found.group(1)} has two parameters of one name")
    return Macro(found.group(1), tuple(parameters), tuple(body), statement)


def bind_arguments(macro: Macro, call: Statement, text: str) -> dict[str, str]:
    """What each parameter of ``macro`` stands for in a call with operands ``text``.

    Raises:
        AssemblyError: too many arguments, a required one missing, an unknown name.
    """
    values = {parameter.name: parameter.default for parameter in macro.parameters}
    given: set[str] = set()
    positions = list(macro.parameters)
    rest = text.strip()
    while rest:
        if positions and positions[0].takes_rest:
            values[positions[0].name] = rest
            given.add(positions[0].name)
            break
        word, rest = _next_word(rest)
        named = _NAMED.match(word)
        if named is not None and named["name"] in values:
            values[named["name"]] = _unquote(named["value"])
            given.add(named["name"])
            positions = [parameter for parameter in positions if parameter.name != named["name"]]
        elif not positions:
            raise call.error(
                f"too many arguments for macro {macro.name}",
                hint=f"defined at {macro.defined.at.file}:{macro.defined.at.line}",
            )
        else:
            parameter = positions.pop(0)
            if word:
                values[parameter.name] = _unquote(word)
                given.add(parameter.name)
    for parameter in macro.parameters:
        if parameter.required and parameter.name not in given:
            raise call.error(f"macro {macro.name} needs a value for {parameter.name}")
    return values


def _next_word(text: str) -> tuple[str, str]:
    """The first argument of ``text`` and the text after its comma or blank."""
    pieces = split_outside(text, ",", brackets=True)
    first = tighten(pieces[0][1])
    after = text[pieces[1][0] :].strip() if len(pieces) > 1 else ""
    words = split_outside(first, " ", brackets=True)
    if len(words) > 1:
        remainder = first[words[1][0] :]
        return words[0][1], f"{remainder}, {after}" if len(pieces) > 1 else remainder
    return first, after


def repeat_words(text: str) -> list[str]:
    """The values that ``.irp`` runs through; one empty value where there are none."""
    return [_unquote(word) for word in _words(text)] if text.strip() else [""]


def substitute(
    body: Sequence[Statement], values: Mapping[str, str], count: int, calls: tuple[Statement, ...] = ()
) -> list[Statement]:
    r"""``body`` with ``\name``, ``\()`` and ``\@`` replaced; ``calls`` is the call, where there is one."""

    def value(found: re.Match[str]) -> str:
        if found["unit"]:
            return ""
        if found["count"]:
            return str(count)
        return values.get(found["name"], found.group())

    out: list[Statement] = []
    for statement in body:
        above = tuple(call.at for call in calls)
        outer = calls[0].calls if calls else ()
        text = _REFERENCE.sub(value, statement.text)
        changed = replace(statement, text=text, calls=(*outer, *above, *statement.calls))
        if text == statement.text:
            out.append(changed)
            continue
        for offset, piece in split_outside(text, ";"):
            _, stripped = strip_piece(offset, piece)
            if stripped:
                out.append(replace(changed, text=stripped))
    return out
