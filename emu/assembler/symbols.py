"""The symbols of one assembly: labels, numeric local labels, and symbols that ``.set`` gives a value."""

from __future__ import annotations

import difflib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field

from emu.assembler.expression import Expression, ExpressionError, Here, Location, Name, evaluate
from emu.assembler.layout import Layout
from emu.assembler.source import Statement

_NUMBERED = re.compile(r"(\d+)([bf])")
_MAX_CHAIN = 100


@dataclass(slots=True)
class SymbolTable:
    """Names and what they stand for; the n-th label ``1:`` is kept under the name ``1:n``."""

    layout: Layout
    labels: dict[str, Location] = field(default_factory=dict)
    equates: dict[str, Expression] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    _numbered: dict[str, int] = field(default_factory=dict)
    _resolving: int = 0

    def named(self, name: str) -> Expression | None:
        """What ``name`` stands for at this statement, where that is known: ``.``, ``1b``, a .set symbol."""
        if name == ".":
            return Here(self.layout.here())
        numbered = _NUMBERED.fullmatch(name)
        if numbered is not None:
            digits, direction = numbered.groups()
            count = self._numbered.get(digits, 0)
            if direction == "b" and not count:
                raise ExpressionError(f"there is no label {digits}: before this line")
            return Name(f"{digits}:{count if direction == 'b' else count + 1}")
        return self.equates.get(name)

    def is_defined(self, name: str) -> bool:
        """Whether ``name`` is a label or has a value by now."""
        return name in self.labels or name in self.equates

    def define_label(self, name: str, statement: Statement) -> None:
        """Put label ``name`` at the present location; AssemblyError where it has one already."""
        if name.isdigit():
            self._numbered[name] = self._numbered.get(name, 0) + 1
            name = f"{name}:{self._numbered[name]}"
        elif self.is_defined(name):
            raise statement.error(f"symbol {name} is defined already")
        self.labels[name] = self.layout.here()

    def define(self, name: str, value: Expression, statement: Statement, *, once: bool = False) -> None:
        """Give ``name`` a value, ``once`` and for all or until the next time; AssemblyError where it is a label."""
        if name in self.labels or (once and name in self.equates):
            raise statement.error(f"symbol {name} is defined already")
        self.equates[name] = value

    def similar(self, missing: Sequence[str]) -> str:
        """A hint that names the symbol most like the first of ``missing``; empty where none is."""
        known = [*self.labels, *self.equates]
        near = difflib.get_close_matches(missing[0], known, n=1, cutoff=0.75) if missing else []
        return f"did you mean {near[0]}?" if near else ""

    def resolve(self, target: str | Location) -> int:
        """The address or value of a name or place once the layout stands."""
        if isinstance(target, Location):
            return self.layout.address(target)
        if target in self.labels:
            return self.layout.address(self.labels[target])
        if target not in self.equates:
            if ":" in target:
                raise ExpressionError(f"there is no label {target.split(':')[0]}: after this line")
            raise ExpressionError(f"symbol {target} is not defined", hint=self.similar([target]))
        if self._resolving > _MAX_CHAIN:
            raise ExpressionError(f"symbol {target} is defined by itself")
        self._resolving += 1
        try:
            return evaluate(self.equates[target], self.resolve)
        finally:
            self._resolving -= 1
