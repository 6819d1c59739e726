"""The assembly of one source: symbols, the location, instructions; ends in an :class:`Image`."""

from __future__ import annotations

import difflib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

from emu.assembler.branches import branch_form, branch_target, far_form
from emu.assembler.directives import DIRECTIVES, Target
from emu.assembler.encode import encode
from emu.assembler.expression import (
    Expression,
    ExpressionError,
    Location,
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
from emu.assembler.sizes import EncodingError
from emu.assembler.source import Statement
from emu.assembler.symbols import SymbolTable
from emu.assembler.verify import MismatchError, check

_ASSIGNMENT = re.compile(r"([A-Za-z_.$][\w.$]*)\s*(==?)(?!=)\s*(.*)$", re.DOTALL)


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
    symbols: SymbolTable
    bits: int = 64
    warnings: list[str] = field(default_factory=list)
    ended: bool = False
    discarded: str = ""
    _lines: list[tuple[Location, int, Statement]] = field(default_factory=list)
    _modes: list[tuple[Location, int]] = field(default_factory=list)
    _emitted: list[_Emitted] = field(default_factory=list)
    _pending: tuple[str, ...] = ()

    def expression(self, text: str, statement: Statement, offset: int) -> Expression:
        """The expression ``text``, which stands ``offset`` into ``statement``, with today's names put in."""
        try:
            return bind(parse(text), self.symbols.named)
        except ExpressionError as error:
            raise statement.error(error.what, offset=offset + error.offset) from error

    def known(self, expression: Expression, statement: Statement) -> int | None:
        """The value of ``expression`` where it is a number before layout."""
        try:
            folded = fold(expression, self.symbols.labels.get)
        except ExpressionError as error:
            raise statement.error(error.what) from error
        return folded.value if folded is not None and folded.chunk is None else None

    def constant(self, text: str, statement: Statement, offset: int) -> int:
        """The value of an expression that must be known now (conditions, repeat counts, sizes)."""
        expression = self.expression(text, statement, offset)
        value = self.known(expression, statement)
        if value is None:
            missing = sorted(names_in(expression) - self.symbols.labels.keys())
            what = f"symbol {missing[0]} is not defined yet" if missing else "the value is not known before layout"
            raise statement.error(f"{what}, but is needed here", offset=offset, hint=self.symbols.similar(missing))
        return value

    def is_defined(self, name: str) -> bool:
        """Whether ``name`` is a symbol already."""
        return self.symbols.is_defined(name)

    # Statements ------------------------------------------------------------------------------------------------

    def take(self, statement: Statement) -> None:
        """Carry out one label, assignment, directive or instruction."""
        text = statement.text
        if text.endswith(":") and re.fullmatch(r"([A-Za-z_.$][\w.$]*|\d+):", text):
            self._flush(statement)
            self.symbols.define_label(text[:-1], statement)
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
            self.symbols.define(name, value, statement, once=operator == "==")

    def _flush(self, statement: Statement) -> None:
        """Emit prefixes that stood alone and were not followed by an instruction."""
        if self._pending:
            prefixes, self._pending = self._pending, ()
            try:
                code = encode(Instruction(prefixes, "", ()), self.bits, ()).code
            except EncodingError as error:
                raise statement.error(error.what, hint=error.hint) from error
            self.emit(code, statement)

    def emit(self, data: bytes, statement: Statement, patches: Sequence[Patch] = ()) -> None:
        """Append ``data``, with ``patches`` whose offsets count from its start."""
        if data:
            self._check_section(statement)
        tail = self.layout.tail()
        base = len(tail.data)
        self._lines.append((self.layout.here(), len(data), statement))
        for patch in patches:
            end = None if patch.end is None else patch.end + base
            tail.patches.append(replace(patch, offset=patch.offset + base, end=end))
        tail.data += data

    def _check_section(self, statement: Statement) -> None:
        if self.discarded:
            raise statement.error(f"bytes in section {self.discarded}", hint="the image is one flat section")

    def set_bits(self, bits: int) -> None:
        """The code size from the present location on."""
        self.bits = bits
        self._modes.append((self.layout.here(), bits))

    def mark_line(self, chunk: int, statement: Statement) -> None:
        """The whole of chunk ``chunk`` comes from ``statement``."""
        self._check_section(statement)
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
        except EncodingError as error:
            raise statement.error(error.what, hint=error.hint) from error

    def _bound(self, operand: Operand) -> Operand:
        if isinstance(operand, Immediate):
            return replace(operand, value=bind(operand.value, self.symbols.named))
        if isinstance(operand, Memory) and operand.displacement is not None:
            return replace(operand, displacement=bind(operand.displacement, self.symbols.named))
        return operand

    def _encode(self, statement: Statement, instruction: Instruction) -> None:
        place = self.layout.here()
        target = branch_target(instruction)
        if target is not None and target.displacement is not None:
            form = branch_form(instruction, self.bits)
            outside = bool(names_in(target.displacement) & self.symbols.globals) and bool(form.long)
            chunk = self.layout.add(Branch(form, target.displacement, statement, self.bits, outside or not form.short))
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
            if isinstance(chunk, Branch) and chunk.form.long and names_in(chunk.target) & self.symbols.globals:
                chunk.long = True
        self.layout.settle(self.symbols.resolve)
        org = self.layout.org
        code = b"".join(self.layout.bytes_of(number, self.symbols.resolve) for number in range(len(self.layout.chunks)))
        for emitted in self._emitted:
            self._verify(emitted, code)
        symbols = {
            name: self.symbols.resolve(name)
            for name in self.symbols.labels
            if ":" not in name and not name.startswith(".L")
        }
        constants: dict[str, int] = {}
        for name, value in self.symbols.equates.items():
            try:
                found = self.symbols.resolve(name)
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
                calls = [f"{call.file}:{call.line}" for call in statement.calls] or [""]
                at = statement.at
                lines.append(Line(self.layout.address(location), whole, at.file, at.line, calls[-1], calls[0]))
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
            found = evaluate(value, self.symbols.resolve) if value is not None else None
            early = self._early(operand, emitted.statement)
            if found is not None and isinstance(operand, Memory) and self._is_relative(operand, early):
                found -= address + size
            values.append(found)
        start = address - self.layout.org
        try:
            check(emitted.instruction, values, code[start : start + size], address, emitted.bits)
        except MismatchError as error:
            raise emitted.statement.error(
                f"{emitted.statement.text!r} did not come out as written: {error}", hint="write it in another form"
            ) from error


def _value_of(operand: Operand) -> Expression:
    if isinstance(operand, Immediate):
        return operand.value
    if isinstance(operand, Memory) and operand.displacement is not None:
        return operand.displacement
    return Number(0)
