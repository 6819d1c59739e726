"""A machine in a file: saved at an instant, and a new machine that goes on from there.

The file is a header in one line (magic, version), then a zstandard frame: a digest of the layout of what follows, a
pickle of plain values (registers by name, device states, counters) and the pages of RAM that are not zero.  Only value
types of the machine's own are let in on reading, so that a file from somebody else cannot run code.
"""

from __future__ import annotations

import io
import pickle
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from enum import Enum
from hashlib import sha256
from itertools import pairwise
from pathlib import Path
from typing import Final

import zstandard

from emu.errors import ImageError, KjumpError
from emu.kexec.e820 import MemoryMap
from emu.machine.counting import CountState
from emu.machine.cpu import GPR_NAMES, SEGMENT_NAMES
from emu.machine.gated import GatedMachine
from emu.machine.instructions import InstructionState
from emu.machine.owners import intervals
from emu.units import PAGE_SHIFT, PAGE_SIZE
from emu.x86.segments import SegmentCache, TableRegister

MAGIC: Final = b"kjump machine 2\n"
_LEVEL: Final = 1
_MOST: Final = 8 << 30
_TABLE: Final = struct.Struct("<I")
_ZERO: Final = bytes(PAGE_SIZE)
_DIGEST: Final = 32


@dataclass(frozen=True, slots=True)
class Saved:
    """All but memory: ``xcr0`` and ``shadow`` are processor state that has no register name."""

    ranges: bytes
    roms: tuple[tuple[int, int], ...]
    post_port: int
    registers: dict[str, int]
    x87: tuple[tuple[int, int], ...]
    xcr0: int
    shadow: bool
    nmi_blocked: bool
    nmi_pending: bool
    board: tuple[int, object]
    count: CountState
    instructions: InstructionState
    deliveries: int


class _Values(pickle.Unpickler):
    """Reads frozen dataclasses and enums of the machine, and nothing else."""

    def find_class(self, module: str, name: str) -> type:
        """Raises ImageError for anything that is not a value type of ours."""
        if module.startswith(("emu.machine.", "emu.x86.")) or module == __name__:
            found = super().find_class(module, name)
            if isinstance(found, type) and (is_dataclass(found) or issubclass(found, Enum)):
                return found
        raise ImageError(f"holds a {module}.{name}, which no saved machine has", where="snapshot")


def _types(value: object) -> Iterator[str]:
    """Every value type in ``value``, with the names of its fields."""
    if is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in fields(value)]
        yield f"{type(value).__qualname__}({','.join(names)})"
        for name in names:
            yield from _types(getattr(value, name))
    elif isinstance(value, Mapping):
        for part in value.values():
            yield from _types(part)
    elif isinstance(value, tuple | list):
        for part in value:
            yield from _types(part)


def layout_digest(value: object) -> bytes:
    """32 bytes that differ where the value types of ``value`` have other fields."""
    return sha256("\n".join(sorted(set(_types(value)))).encode()).digest()


def save(machine: GatedMachine, path: Path) -> None:
    """Write ``machine`` as it stands; raises KjumpError where the file cannot be written."""
    state = Saved(
        ranges=machine.memory_map.encode(),
        roms=tuple((bank.start, bank.end) for bank in machine.ram.banks if bank.rom),
        post_port=machine.post_port,
        registers=machine.cpu.registers(),
        x87=machine.engine.x87_stack,
        xcr0=machine.loop.xcr0,
        shadow=machine.engine.interrupt_shadow,
        nmi_blocked=machine.cpu.nmi_blocked,
        nmi_pending=machine.nmi_pending,
        board=machine.board.snapshot(),
        count=machine.count.state,
        instructions=machine.instructions.state,
        deliveries=machine.deliveries,
    )
    head = pickle.dumps(state)
    pages = [pfn for pfn in machine.ram.dirty_pfns() if machine.ram.page(pfn) != _ZERO]
    try:
        with path.open("wb") as file:
            file.write(MAGIC)
            with zstandard.ZstdCompressor(level=_LEVEL).stream_writer(file, closefd=False) as packed:
                packed.write(layout_digest(state) + _TABLE.pack(len(head)) + head + _TABLE.pack(len(pages)))
                packed.write(struct.pack(f"<{len(pages)}Q", *pages))
                for pfn in pages:
                    packed.write(machine.ram.page(pfn))
    except OSError as error:
        raise KjumpError(f"cannot be written: {error.strerror}", where=str(path)) from error


def restore(path: Path) -> GatedMachine:
    """A new machine that stands where the saved one stood; raises KjumpError, ImageError for a file that is none."""
    try:
        raw = path.read_bytes()
    except OSError as error:
        raise KjumpError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not raw.startswith(MAGIC):
        raise ImageError("is no saved machine", where=str(path), hint="kjump boot --save makes one")
    try:
        body = zstandard.ZstdDecompressor().decompressobj().decompress(raw[len(MAGIC) :])
        digest, body = body[:_DIGEST], body[_DIGEST:]
        size = _TABLE.unpack_from(body)[0]
        state = _Values(io.BytesIO(body[4 : 4 + size])).load()
        same = layout_digest(state) == digest
        count = _TABLE.unpack_from(body, 4 + size)[0]
        pages = struct.unpack_from(f"<{count}Q", body, 8 + size)
    except (TypeError, AttributeError, ImportError) as error:  # a value type is another by now
        raise _older(path) from error
    except (zstandard.ZstdError, pickle.UnpicklingError, struct.error, EOFError) as error:
        raise ImageError(f"is damaged: {error}", where=str(path)) from error
    if not same:
        raise _older(path)
    start = 8 + size + 8 * count
    if not isinstance(state, Saved) or len(body) != start + count * PAGE_SIZE:
        raise ImageError("is damaged or truncated", where=str(path))
    machine = GatedMachine(MemoryMap.decode(state.ranges), roms=state.roms, post_port=state.post_port)
    _fill(machine, pages, memoryview(body)[start:], path)
    _put(machine, state)
    return machine


def _fill(machine: GatedMachine, pages: Sequence[int], data: memoryview, path: Path) -> None:
    """Put ``data`` into the page frames ``pages``, runs of them at once."""
    if any(pfn >= following for pfn, following in pairwise(pages)):
        raise ImageError("is damaged: its pages are out of order", where=str(path))
    done = 0
    for first, behind in intervals(pages):
        pfn = first
        while pfn < behind:
            bank = machine.ram.bank_at(pfn << PAGE_SHIFT)
            if bank is None:
                raise ImageError(f"has a page {pfn:#x} outside its memory map", where=str(path))
            at = (pfn << PAGE_SHIFT) - bank.start
            size = min((behind - pfn) << PAGE_SHIFT, bank.size - at)
            bank.view[at : at + size] = data[done : done + size]
            done += size
            pfn += size >> PAGE_SHIFT


def _older(path: Path) -> ImageError:
    return ImageError("was saved by another kjump than this one", where=str(path), hint="boot and save again")


def _put(machine: GatedMachine, state: Saved) -> None:
    registers, engine = state.registers, machine.engine
    for index, name in enumerate(GPR_NAMES):
        engine.set_gpr(index, registers[name])
    for index, name in enumerate(SEGMENT_NAMES):
        engine.set_segment(index, _cache(registers, name))
    engine.ldtr, engine.tr = _cache(registers, "ldtr"), _cache(registers, "tr")
    engine.gdtr = TableRegister(registers["gdtr.base"], registers["gdtr.limit"])
    engine.idtr = TableRegister(registers["idtr.base"], registers["idtr.limit"])
    for number in (0, 2, 3, 4):
        engine.set_cr(number, registers[f"cr{number}"])
    engine.efer = registers["efer"]
    machine.cpu.put_msrs(registers)
    for number in (0, 1, 2, 3, 6, 7):
        engine.set_dr(number, registers[f"dr{number}"])
    engine.put_fpu_sse(registers)
    engine.x87_stack = state.x87
    engine.rip, engine.rflags = registers["rip"], registers["rflags"]
    engine.settle()
    machine.loop.set_xcr0(state.xcr0)
    engine.interrupt_shadow = state.shadow
    engine.flush_tlb()
    machine.cpu.settle_pdptes()
    machine.cpu.nmi_blocked, machine.nmi_pending = state.nmi_blocked, state.nmi_pending
    machine.board.restore(state.board)
    machine.count.state = state.count
    machine.instructions.state = state.instructions
    machine.deliveries = state.deliveries


def _cache(registers: dict[str, int], name: str) -> SegmentCache:
    return SegmentCache(
        registers[name], registers[f"{name}.base"], registers[f"{name}.limit"], registers[f"{name}.flags"]
    )
