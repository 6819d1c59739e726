"""The statements that remain when includes, macros, repetitions and conditions have been carried out.

The reader is lazy: a condition is decided when the statements before it have been assembled, so that it may
ask for the distance of two labels, as in the GNU assembler.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from emu.assembler.macros import Macro, bind_arguments, parse_definition, repeat_words, substitute, tighten
from emu.assembler.source import Position, Statement, read_statements, split_outside, strip_piece

MAX_NESTING = 100
MAX_STATEMENTS = 500_000
_LABEL = re.compile(r"([A-Za-z_.$][\w.$]*|\d+)\s*:(?!:)\s*")
_WORD = re.compile(r"\S+")
_OPENS_MACRO = frozenset((".macro",))
_OPENS_REPEAT = frozenset((".rept", ".irp", ".irpc", ".rep"))


class Scope(Protocol):
    """What the reader must ask of the assembly so far."""

    def constant(self, text: str, statement: Statement, offset: int) -> int:
        """The value of an expression that must be known now; AssemblyError otherwise."""

    def is_defined(self, name: str) -> bool:
        """Whether ``name`` is a symbol already."""


@dataclass(slots=True)
class _Frame:
    """One source being read: a file, a macro's body, a repetition."""

    statements: Sequence[Statement]
    kind: str
    conditions: int
    next: int = 0


@dataclass(slots=True)
class _Condition:
    opened: Statement
    live: bool
    taken: bool
    parent_live: bool
    has_else: bool = False


@dataclass(slots=True)
class Reader:
    """Reads one source file and everything that it includes."""

    scope: Scope
    include: Sequence[Path] = ()
    macros: dict[str, Macro] = field(default_factory=dict)
    texts: dict[str, tuple[str, ...]] = field(default_factory=dict)
    _frames: list[_Frame] = field(default_factory=list)
    _conditions: list[_Condition] = field(default_factory=list)
    _calls: int = 0
    _count: int = 0

    def read(self, text: str, name: str) -> Iterator[Statement]:
        """Every label (``name:``) and statement of ``text``, expanded, in order.

        Raises:
            AssemblyError: an unclosed block, a bad condition, a missing include, runaway macros.
        """
        self._open_text(text, name)
        while self._frames:
            statement = self._pull()
            if statement is None:
                self._close_frame()
                continue
            yield from self._expand(statement)

    def _open_text(self, text: str, name: str) -> None:
        self.texts[name] = tuple(text.split("\n"))
        self._push(read_statements(text, name), "file")

    def _push(self, statements: Sequence[Statement], kind: str) -> None:
        if len(self._frames) >= MAX_NESTING and statements:
            raise statements[0].error(
                f"macros or includes nested more than {MAX_NESTING} deep", hint="a macro that calls itself?"
            )
        self._frames.append(_Frame(statements, kind, len(self._conditions)))

    def _pull(self) -> Statement | None:
        frame = self._frames[-1]
        if frame.next >= len(frame.statements):
            return None
        statement = frame.statements[frame.next]
        frame.next += 1
        self._count += 1
        if self._count > MAX_STATEMENTS:
            raise statement.error(f"more than {MAX_STATEMENTS} statements after expansion")
        return statement

    def _close_frame(self) -> None:
        frame = self._frames.pop()
        if frame.kind != "repeat" and len(self._conditions) > frame.conditions:
            raise self._conditions[-1].opened.error("this condition has no .endif")

    def _expand(self, statement: Statement) -> Iterator[Statement]:
        text, shift = statement.text, 0
        live = not self._conditions or self._conditions[-1].live
        while (label := _LABEL.match(text, shift)) is not None:
            if live:
                yield self._part(statement, shift, f"{label.group(1)}:")
            shift = label.end()
        if shift == len(text):
            return
        part = self._part(statement, shift, text[shift:])
        found = _WORD.match(part.text)
        word = found.group().lower() if found else ""
        operands = part.text[len(word) :].strip()
        if self._condition(part, word, operands) or not live:
            return
        handler = self._handler(word)
        if handler is not None:
            handler(part, operands)
        elif word in self.macros and not re.match(r"=(?!=)", operands):
            self._call(self.macros[word], part, operands)
        else:
            yield part

    @staticmethod
    def _part(statement: Statement, shift: int, text: str) -> Statement:
        at = statement.at
        return Statement(text, Position(at.file, at.line, at.column + shift, at.source), statement.calls)

    def _handler(self, word: str) -> Callable[[Statement, str], None] | None:
        handlers: dict[str, Callable[[Statement, str], None]] = {
            ".macro": self._define,
            ".rept": self._repeat,
            ".rep": self._repeat,
            ".irp": self._run_through,
            ".irpc": self._run_through,
            ".include": self._include,
            ".exitm": self._leave_macro,
            ".purgem": self._purge,
            ".endm": self._stray,
            ".endmacro": self._stray,
            ".endr": self._stray,
        }
        return handlers.get(word)

    # Blocks ----------------------------------------------------------------------------------------------------

    def _body(self, opened: Statement, opens: frozenset[str], closes: frozenset[str]) -> list[Statement]:
        """The raw statements up to the one that closes the block which ``opened`` opens."""
        body: list[Statement] = []
        depth = 1
        while (statement := self._pull()) is not None:
            text = statement.text
            shift = 0
            while (label := _LABEL.match(text, shift)) is not None:
                shift = label.end()
            words = text[shift:].split(None, 1)
            word = words[0].lower() if words else ""
            depth += (word in opens) - (word in closes)
            if depth == 0:
                return body
            body.append(statement)
        raise opened.error(f"this block has no {min(closes)}")

    def _define(self, statement: Statement, operands: str) -> None:
        body = self._body(statement, _OPENS_MACRO, frozenset((".endm", ".endmacro")))
        macro = parse_definition(statement, operands, body)
        if macro.name.lower() in self.macros:
            raise statement.error(f"macro {macro.name} is defined already", hint=".purgem drops a macro")
        self.macros[macro.name.lower()] = macro

    def _call(self, macro: Macro, statement: Statement, operands: str) -> None:
        values = bind_arguments(macro, statement, operands)
        expanded = substitute(macro.body, values, self._calls, (statement,))
        self._calls += 1
        self._push(expanded, "macro")

    def _repeat(self, statement: Statement, operands: str) -> None:
        offset = len(statement.text) - len(operands)
        body = self._body(statement, _OPENS_REPEAT, frozenset((".endr",)))
        count = self.scope.constant(operands, statement, offset)
        if count < 0 or count * len(body) > MAX_STATEMENTS:
            raise statement.error(f"cannot repeat {count} times", offset=offset)
        self._push(body * count, "repeat")

    def _run_through(self, statement: Statement, operands: str) -> None:
        by_character = statement.text.lower().startswith(".irpc")
        body = self._body(statement, _OPENS_REPEAT, frozenset((".endr",)))
        found = re.match(r"([A-Za-z_$.][\w$.]*)\s*,?\s*(.*)$", operands, re.DOTALL)
        if found is None:
            raise statement.error("a symbol to run through the values is missing")
        name, text = found.groups()
        expanded: list[Statement] = []
        for value in text.strip().strip('"') if by_character else repeat_words(text):
            expanded += substitute(body, {name: value}, self._calls)
        self._push(expanded, "repeat")

    def _leave_macro(self, statement: Statement, _operands: str) -> None:
        while self._frames[-1].kind == "repeat":
            self._frames.pop()
        if self._frames[-1].kind != "macro":
            raise statement.error(".exitm outside a macro")
        del self._conditions[self._frames.pop().conditions :]

    def _purge(self, statement: Statement, operands: str) -> None:
        if self.macros.pop(operands.lower(), None) is None:
            raise statement.error(f"there is no macro {operands}")

    @staticmethod
    def _stray(statement: Statement, _operands: str) -> None:
        raise statement.error(f"{statement.text.split()[0]} closes a block that was never opened")

    # Conditions ------------------------------------------------------------------------------------------------

    def _condition(self, statement: Statement, word: str, operands: str) -> bool:
        """Carry out ``word`` where it is part of a condition, also in text that is being skipped."""
        if word.startswith(".if"):
            live = not self._conditions or self._conditions[-1].live
            truth = live and self._truth(statement, word, operands)
            self._conditions.append(_Condition(statement, truth, truth, live))
            return True
        if word not in (".else", ".elseif", ".endif"):
            return False
        if len(self._conditions) <= self._frames[-1].conditions and self._frames[-1].kind != "repeat":
            raise statement.error(f"{word} without .if")
        if not self._conditions:
            raise statement.error(f"{word} without .if")
        current = self._conditions[-1]
        if word == ".endif":
            self._conditions.pop()
            return True
        if current.has_else:
            raise statement.error(f"{word} after .else", hint=f"the condition began in line {current.opened.at.line}")
        if word == ".else":
            current.has_else = True
            current.live = current.parent_live and not current.taken
        else:
            wanted = current.parent_live and not current.taken
            current.live = wanted and self._truth(statement, ".if", operands)
        current.taken = current.taken or current.live
        return True

    def _truth(self, statement: Statement, word: str, operands: str) -> bool:
        offset = len(statement.text) - len(operands)
        compare = {".ifeq": "==", ".ifne": "!=", ".ifgt": ">", ".ifge": ">=", ".iflt": "<", ".ifle": "<="}
        if word == ".if":
            return self.scope.constant(operands, statement, offset) != 0
        if word in compare:
            return self.scope.constant(f"({operands}){compare[word]}0", statement, offset) != 0
        if word in (".ifdef", ".ifndef", ".ifnotdef"):
            if not re.fullmatch(r"[A-Za-z_.$][\w.$]*", operands):
                raise statement.error(f"{word} needs one symbol name", offset=offset)
            return self.scope.is_defined(operands) == (word == ".ifdef")
        if word in (".ifb", ".ifnb"):
            return (not operands) == (word == ".ifb")
        if word in (".ifc", ".ifnc", ".ifeqs", ".ifnes"):
            pieces = split_outside(operands, ",")
            if len(pieces) != 2:
                raise statement.error(f"{word} needs two texts", offset=offset)
            left, right = (tighten(strip_piece(*piece)[1]).strip("'") for piece in pieces)
            return (left == right) == (word in (".ifc", ".ifeqs"))
        raise statement.error(f"{word} is not supported")

    # Files -----------------------------------------------------------------------------------------------------

    def _include(self, statement: Statement, operands: str) -> None:
        offset = len(statement.text) - len(operands)
        if not re.fullmatch(r'"[^"\0]+"', operands):
            raise statement.error(".include needs a file name in quotes", offset=offset)
        wanted = operands[1:-1]
        folders = [Path(statement.at.file).parent, *self.include]
        roots = [folder.resolve() for folder in folders]
        candidates = [folder / wanted for folder in folders]
        inside = [path for path in candidates if any(path.resolve().is_relative_to(root) for root in roots)]
        searched = ", ".join(map(str, folders))
        if Path(wanted).is_absolute() or not inside:
            raise statement.error(
                f"{wanted} is outside the folders that may be included from", offset=offset, hint=f"allowed: {searched}"
            )
        for path in inside:
            if path.is_file():
                self._open_file(statement, path, offset)
                return
        raise statement.error(f"{wanted} was not found", offset=offset, hint=f"searched {searched}")

    def _open_file(self, statement: Statement, path: Path, offset: int) -> None:
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise statement.error(f"{path} cannot be read as text: {error}", offset=offset) from error
        self._open_text(text, str(path))
