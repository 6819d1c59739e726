"""Is the installed engine the one whose private state is known?  Known faults are provoked, each field is compared."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.errors import EngineError
from emu.machine.cpustate import RAX, RDI, process_memory
from emu.machine.stops import StopKind

if TYPE_CHECKING:
    from emu.machine.engine import Engine

_PAGE = 0x7F000
_DATA = 0x7D000
_OTHER = _DATA + (1 << 24)  # its translation pushes that of the former out of its place, however large the cache is now
_MAY_HOLD_CODE = 0x400
_ARITHMETIC_FLAGS = 0x8D5
_PROGRAM = bytes.fromhex("90 90 31c9 f7f1 cd42 eb00 eb00 8807 8a07 f4")

Check = tuple[str, object, object]
"""What was looked at, what was seen, what the truth is."""


def calibrate(engine: Engine) -> None:
    """Provoke a known #DE and INT 0x42 in a scratch mapping; raises EngineError when a private field disagrees."""
    engine.map_scratch(_PAGE, _PROGRAM)
    engine.map_scratch(_DATA, b"")
    engine.map_scratch(_OTHER, b"")
    checks = [_new_blocks(engine), *_stops(engine), *_registers(engine), *_translations(engine)]
    engine.unmap_scratch(_OTHER)
    engine.unmap_scratch(_DATA)
    engine.unmap_scratch(_PAGE)
    for what, actual, expected in checks:
        if actual != expected:
            raise EngineError(
                f"calibration of {what} gave {actual}, not {expected}",
                hint="install unicorn==2.1.4 for x86-64 Linux",
            )


def counts_by_blocks(engine: Engine) -> bool:
    """Does counting by blocks (:mod:`emu.machine.blocks`) work with this engine?  Before it has memory or paging."""
    blocks = engine.blocks
    if not blocks.fits():
        return False
    engine.map_scratch(_PAGE, _PROGRAM)
    engine.map_scratch(_DATA, b"")
    try:
        engine.count_by_blocks(on=True)
        seen = [*_stops(engine), _ends_of_blocks(engine), _spared_checks(engine)]
    except EngineError:
        return False
    finally:
        engine.count_by_blocks(on=False)
        engine.unmap_scratch(_DATA)
        engine.unmap_scratch(_PAGE)
    return all(actual == expected for _, actual, expected in seen)


def _ends_of_blocks(engine: Engine) -> Check:
    """Three instructions, the first two of which are blocks of their own, with fewer and more than that asked for."""
    seen = []
    engine.set_gpr(RDI, _DATA)
    for count in (1, 2, 3):
        engine.rip = _PAGE + 8
        stop = engine.run(count)
        seen.append((stop.kind, stop.executed, engine.rip - _PAGE, engine.came_back))
    return "blocks", seen, [(StopKind.COUNT, count, 8 + 2 * count, False) for count in (1, 2, 3)]


def _spared_checks(engine: Engine) -> Check:
    """A store, a load and HLT are translated to less without a check behind each access."""
    sizes = []
    for spare in (False, True):
        engine.blocks.spare_checks(on=spare)
        engine.flush_code()
        engine.set_gpr(RDI, _DATA)
        engine.rip = _PAGE + 12
        engine.run(10)
        sizes.append(engine.blocks.host_size)
    return "checks", sizes[1] < sizes[0], True


def _new_blocks(engine: Engine) -> Check:
    seen: list[int] = []

    def note(linear: int, _size: int) -> bool:
        seen.append(linear)
        return False

    engine.on_new_code = note
    engine.rip = _PAGE + 10
    engine.run(2)  # until one block has run to its end, the engine reports no new ones
    engine.flush_code()
    seen.clear()
    engine.rip = _PAGE + 10
    engine.run(2)
    engine.on_new_code = lambda _linear, _size: False
    return "new blocks", seen, [_PAGE + 10, _PAGE + 12]


def _stops(engine: Engine) -> list[Check]:
    engine.rip = _PAGE
    stop = engine.run(100)
    divide = ("#DE", (stop.vector, stop.executed, engine.rip, stop.software), (0, 3, _PAGE + 4, False))
    engine.clear_exception()
    engine.rip = _PAGE + 6
    stop = engine.run(100)
    software = ("INT n", (stop.vector, stop.software, stop.next_rip), (0x42, True, _PAGE + 8))
    engine.clear_exception()
    engine.rip = _PAGE
    stop = engine.run(2)
    return [divide, software, ("count", (stop.kind, stop.executed, engine.rip), (StopKind.COUNT, 2, _PAGE + 2))]


def _registers(engine: Engine) -> list[Check]:
    engine.write_public("GDTR", (0, 0x1234000, 0x57, 0))
    engine.write_public("IDTR", (0, 0x5678000, 0x7FF, 0))
    checks: list[Check] = [
        ("GDTR", (engine.gdtr.base, engine.gdtr.limit), (0x1234000, 0x57)),
        ("IDTR", (engine.idtr.base, engine.idtr.limit), (0x5678000, 0x7FF)),
    ]
    for flags, backward in ((0x46702, True), (2, False)):
        engine.write_public("RFLAGS", flags | _ARITHMETIC_FLAGS)
        checks.append(("RFLAGS", engine.rflags, flags | _ARITHMETIC_FLAGS | 2))
        engine.rflags = flags
        checks.append(("RFLAGS", engine.read_public("RFLAGS"), flags | 2))
        checks.append(("EFLAGS", engine.system_flags & 0x47300, flags & 0x47300))
        checks.append(("DF", engine.backward, backward))
    return checks + [(f"CR{number}", engine.cr(number), engine.read_public(f"CR{number}")) for number in (0, 4)]


def _translations(engine: Engine) -> list[Check]:
    truth = _DATA, _DATA, _DATA, b"\x5a"
    engine.set_gpr(RDI, _DATA + 0x123)
    engine.set_gpr(RAX, 0x5A)
    engine.rip = _PAGE + 12
    engine.run(2)
    seen = _translation(engine.translation(_DATA))
    engine.set_gpr(RDI, _OTHER)
    engine.rip = _PAGE + 14
    engine.run(1)
    displaced = engine.displaced_translations().get(_DATA, (0, 0, 0, 0))
    fetched = engine.fetched_from(_PAGE + 14) if seen == truth else None
    return [
        ("translations", seen, truth),
        ("displaced translations", _translation(displaced), truth),
        ("translations of fetches", fetched, _PAGE + 14),
    ]


def _translation(entry: tuple[int, int, int, int]) -> tuple[int, int, int, bytes]:
    read, write, physical, addend = entry
    return read, write & ~_MAY_HOLD_CODE, physical, process_memory(addend + _DATA + 0x123, 1)
