"""The assembly of one source: symbols, the location, instructions; ends in an :class:`Image`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from emu.assembler.branches import branch_form, branch_target, far_form
from emu.assembler.directives import DIRECTIVES, Target
from emu.assembler.encode import CannotEncode, encode
from emu.assembler.expression import (
    Expression,
    ExpressionError,
    Here,
    Location,
    Name,
    Number,
    bind,
    degree,
    evaluate,
    fold,
    names_in,
    parse,
)
from emu.assembler.image import Image, Line
from emu.assembler.layout import Branch, Layout, Patch
from emu.assembler.operands import Immediate, Instruction, Memory, Operand, parse_instruction
from emu.assembler.source import Statement
from emu.assembler.verify import Mismatch, check

_ASSIGNMENT = re.compile(r"([A-Za-z_.$][\w.$]*)\s*(==?)(?!=)\s*(.*)$", re.S)
_NUMBERED = re.compile(r"(\d+)([bf])")
_MAX_CHAIN = 100


@dataclass(frozen=True, slots=True)
class _Emitted:
    """One instruction as written, and where it went: ``size`` bytes at ``location``; size 0: a whole chunk."""

    statement: Statement
    instruction: Instruction
    location: Location
    size: int
    bits: int


@dataclass(slots=True)
class Assembly(Target):
    """Takes statements one by one; :meth:`finish` gives the image."""

    name: str
    layout: Layout
    bits: int = 64
    labels: dict[str, Location] = field(default_factory=dict)
    equates: dict[str, Expression] = field(default_factory=dict)
    globals: set[str] = field(default_factory=set)
    warnings: list[str] = field(default_factory=list)
    ended: bool = False
    discarded: str = ""
    _numbered: dict[str, int] = field(default_factory=dict)
    _lines: list[tuple[Location, int, Statement]] = field(default_factory=list)
    _modes: list[tuple[Location, int]] = field(default_factory=list)
    _emitted: list[_Emitted] = field(default_factory=list)
    _pending: tuple[str, ...] = ()
    _resolving: int = 0

    # Symbols ---------------------------------------------------------------------------------------------------

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

    def expression(self, text: str, statement: Statement, offset: int) -> Expression:
        """The expression ``text``, which stands ``offset`` into ``statement``, with today's names put in."""
        try:
            return bind(parse(text), self.named)
        except ExpressionError as error:
            raise statement.error(error.what, offset=offset + error.offset) from error

    def known(self, expression: Expression, statement: Statement) -> int | None:
        """The value of ``expression`` where it is a number before layout."""
        try:
            folded = fold(expression, self.labels.get)
        except ExpressionError as error:
            raise statement.error(error.what) from error
        return folded.value if folded is not None and folded.chunk is None else None

    def constant(self, text: str, statement: Statement, offset: int) -> int:
        """The value of an expression that must be known now (conditions, repeat counts, sizes)."""
        expression = self.expression(text, statement, offset)
        value = self.known(expression, statement)
        if value is None:
            missing = sorted(names_in(expression) - self.labels.keys())
            what = f"symbol {missing[0]} is not defined yet" if missing else "the value is not known before layout"
            raise statement.error(f"{what}, but is needed here", offset=offset, hint=self._similar(missing))
        return value

    def is_defined(self, name: str) -> bool:
        return name in self.labels or name in self.equates

    def define_label(self, name: str, statement: Statement) -> None:
        if name.isdigit():
            self._numbered[name] = self._numbered.get(name, 0) + 1
            name = f"{name}:{self._numbered[name]}"
        elif self.is_defined(name):
            raise statement.error(f"symbol {name} is defined already")
        self.labels[name] = self.layout.here()

    def define(self, name: str, value: Expression, statement: Statement, *, once: bool = False) -> None:
        if name in self.labels or (once and name in self.equates):
            raise statement.error(f"symbol {name} is defined already")
        self.equates[name] = value

    def _similar(self, missing: Sequence[str]) -> str:
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
            raise ExpressionError(f"symbol {target} is not defined", hint=self._similar([target]))
        if self._resolving > _MAX_CHAIN:
            raise ExpressionError(f"symbol {target} is defined by itself")
        self._resolving += 1
        try:
            return evaluate(self.equates[target], self.resolve)
        finally:
            self._resolving -= 1

    # Statements ------------------------------------------------------------------------------------------------

    def take(self, statement: Statement) -> None:
        """Carry out one label, assignment, directive or instruction."""
        text = statement.text
        if text.endswith(":") and re.fullmatch(r"([A-Za-z_.$][\w.$]*|\d+):", text):
            self._flush(statement)
            self.define_label(text[:-1], statement)
            return
        assigned = _ASSIGNMENT.match(text)
        if assigned is not None:
            self._assign(statement, assigned)
            return
        word = text.split(None, 1)[0].lower()
        if word.startswith("."):
            self._flush(statement)
            operands = text[len(word) :].strip()
            offset = len(text) - len(operands)
            handler = DIRECTIVES.get(word) or (DIRECTIVES[".cfi_"] if word.startswith(".cfi_") else None)
            if handler is None:
                near = difflib.get_close_matches(word, DIRECTIVES, n=1)
                raise statement.error(
                    f"directive {word} is not supported", hint=f"did you mean {near[0]}?" if near else ""
                )
            handler(self, statement, operands, offset)
            return
        self._instruction(statement)

    def _assign(self, statement: Statement, assigned: re.Match[str]) -> None:
        self._flush(statement)
        name, operator, text = assigned.groups()
        value = self.expression(text, statement, assigned.start(3))
        if name == ".":
            DIRECTIVES[".org"](self, statement, text, assigned.start(3))
        else:
            self.define(name, value, statement, once=operator == "==")

    def _flush(self, statement: Statement) -> None:
        """Emit prefixes that stood alone and were not followed by an instruction."""
        if self._pending:
            code = encode(Instruction(self._pending, "", ()), self.bits, ()).code
            self._pending = ()
            self.emit(code, statement)

    def emit(self, data: bytes, statement: Statement, patches: Sequence[Patch] = ()) -> None:
        """Append ``data``, with ``patches`` whose offsets count from its start."""
        if self.discarded and data:
            raise statement.error(f"bytes in section {self.discarded}", hint="the image is one flat section")
        tail = self.layout.tail()
        base = len(tail.data)
        self._lines.append((self.layout.here(), len(data), statement))
        for patch in patches:
            end = None if patch.end is None else patch.end + base
            tail.patches.append(replace(patch, offset=patch.offset + base, end=end))
        tail.data += data

    def set_bits(self, bits: int) -> None:
        self.bits = bits
        self._modes.append((self.layout.here(), bits))

    def mark_line(self, chunk: int, statement: Statement) -> None:
        """The whole of chunk ``chunk`` comes from ``statement``."""
        self._lines.append((Location(chunk, 0), 0, statement))

    # Instructions ----------------------------------------------------------------------------------------------

    def _instruction(self, statement: Statement) -> None:
        parsed = parse_instruction(statement)
        parsed = replace(parsed, prefixes=(*self._pending, *parsed.prefixes))
        self._pending = ()
        if not parsed.mnemonic:
            self._pending = parsed.prefixes
            return
        try:
            operands = tuple(self._bound(operand) for operand in parsed.operands)
        except ExpressionError as error:
            raise statement.error(error.what) from error
        instruction = replace(parsed, operands=operands)
        try:
            self._encode(statement, instruction)
        except CannotEncode as error:
            raise statement.error(error.what, hint=error.hint) from error

    def _bound(self, operand: Operand) -> Operand:
        if isinstance(operand, Immediate):
            return replace(operand, value=bind(operand.value, self.named))
        if isinstance(operand, Memory) and operand.displacement is not None:
            return replace(operand, displacement=bind(operand.displacement, self.named))
        return operand

    def _encode(self, statement: Statement, instruction: Instruction) -> None:
        place = self.layout.here()
        target = branch_target(instruction)
        if target is not None and target.displacement is not None:
            form = branch_form(instruction, self.bits)
            outside = bool(names_in(target.displacement) & self.globals) and bool(form.long)
            chunk = self.layout.add(
                Branch(form, target.displacement, statement, self.bits, outside or not form.short)
            )
            self.mark_line(chunk, statement)
            self._emitted.append(_Emitted(statement, instruction, Location(chunk, 0), 0, self.bits))
            return
        far = far_form(instruction, self.bits)
        if far is not None:
            at = len(far.opcode)
            patches = [Patch(at, far.width, far.offset.value, statement)]
            patches.append(Patch(at + far.width, 2, far.selector.value, statement))
            code = far.opcode + bytes(far.width + 2)
        else:
            values = [self._early(operand, statement) for operand in instruction.operands]
            if instruction.mnemonic == "int" and values == [3]:
                instruction = replace(instruction, mnemonic="int3", operands=())
            encoding = encode(instruction, self.bits, values)
            code = encoding.code
            patches = []
            for hole in encoding.holes:
                operand = instruction.operands[hole.operand]
                relative = isinstance(operand, Memory) and self._is_relative(operand, values[hole.operand])
                end = len(code) if relative else None
                patches.append(Patch(hole.offset, hole.size, _value_of(operand), statement, end, signed_only=relative))
        self._emitted.append(_Emitted(statement, instruction, place, len(code), self.bits))
        self.emit(code, statement, patches)

    def _early(self, operand: Operand, statement: Statement) -> int | None:
        value = _value_of(operand)
        return self.known(value, statement) if value is not None else None

    def _is_relative(self, operand: Memory, known: int | None) -> bool:
        if known is not None or operand.base not in ("rip", "eip") or operand.displacement is None:
            return False
        return degree(operand.displacement) != 0

    # The end ---------------------------------------------------------------------------------------------------

    def finish(self, sources: Mapping[str, tuple[str, ...]], last: Statement | None) -> Image:
        """Lay everything out, fill in the values, check every instruction.

        Raises:
            AssemblyError: an undefined symbol, a value out of range, an instruction that came out wrong.
        """
        if last is not None:
            self._flush(last)
        for chunk in self.layout.chunks:
            if isinstance(chunk, Branch) and chunk.form.long and names_in(chunk.target) & self.globals:
                chunk.long = True
        self.layout.settle(self.resolve)
        org = self.layout.org
        code = b"".join(self.layout.bytes_of(number, self.resolve) for number in range(len(self.layout.chunks)))
        for emitted in self._emitted:
            self._verify(emitted, code)
        symbols = {name: self.resolve(name) for name in self.labels if ":" not in name and not name.startswith(".L")}
        constants: dict[str, int] = {}
        for name, value in self.equates.items():
            try:
                found = self.resolve(name)
            except ExpressionError:
                continue
            (symbols if degree(value) == 1 and org <= found <= org + len(code) else constants)[name] = found
        return Image(
            code=code,
            org=org,
            bits=self._first_bits(),
            symbols=symbols,
            lines=self._line_map(),
            name=self.name,
            modes=self._mode_map(),
            constants=constants,
            warnings=tuple(self.warnings),
            sources=sources,
        )

    def _size_at(self, location: Location, size: int) -> int:
        return size or self.layout.size_of(location.chunk)

    def _line_map(self) -> tuple[Line, ...]:
        lines = []
        for location, size, statement in self._lines:
            whole = self._size_at(location, size) if size or not location.offset else 0
            if whole:
                call = statement.calls[-1] if statement.calls else None
                from_ = f"{call.file}:{call.line}" if call else ""
                lines.append(
                    Line(self.layout.address(location), whole, statement.at.file, statement.at.line, from_)
                )
        return tuple(sorted(lines, key=lambda line: line.address))

    def _first_bits(self) -> int:
        start = self.layout.org
        bits = [bits for location, bits in self._modes if self.layout.address(location) == start]
        return bits[-1]

    def _mode_map(self) -> tuple[tuple[int, int], ...]:
        start = self.layout.org
        found = {self.layout.address(location): bits for location, bits in self._modes}
        return tuple(sorted((address, bits) for address, bits in found.items() if address > start))

    def _verify(self, emitted: _Emitted, code: bytes) -> None:
        address = self.layout.address(emitted.location)
        size = self._size_at(emitted.location, emitted.size)
        values: list[int | None] = []
        for operand in emitted.instruction.operands:
            value = _value_of(operand)
            found = evaluate(value, self.resolve) if value is not None else None
            early = self._early(operand, emitted.statement)
            if found is not None and isinstance(operand, Memory) and self._is_relative(operand, early):
                found -= address + size
            values.append(found)
        start = address - self.layout.org
        try:
            check(emitted.instruction, values, code[start : start + size], address, emitted.bits)
        except Mismatch as error:
            raise emitted.statement.error(
                f"{emitted.statement.text!r} did not come out as written: {error}", hint="write it in another form"
            ) from error


def _value_of(operand: Operand) -> Expression:
    if isinstance(operand, Immediate):
        return operand.value
    if isinstance(operand, Memory) and operand.displacement is not None:
        return operand.displacement
    return Number(0)
