"""Checks of what the loader laid down, and of what the stub leaves of A's processor."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.assembler import Image
from emu.journey.memory import RamImage
from emu.journey.outcome import Outcome, finding_here
from emu.kexec.layout import KexecParams
from emu.units import PAGE_SHIFT, PAGE_SIZE, show_phys
from emu.x86.bits import Cr4

if TYPE_CHECKING:
    from emu.journey.journey import Journey
    from emu.journey.movement import Movement

_FILLED = {
    "kexec_va_control_page": 8,
    "kexec_pa_table_page": 8,
    "kexec_pa_swap_page": 8,
    "pa_inverse_map": 8,
    "cp_pa_inverse_map": 4,
}
"""The words that the loader fills, with their bytes: x86_64, and the last one i386."""
_BUSY_MAP_BYTES = 0x8000


def only_its_own(journey: Journey, before: RamImage) -> Outcome:
    """The load changed its own pages, what A is told, and the rights of one page in A's tables; nothing else."""
    name = "load"
    loaded = journey.require_loaded()
    if loaded.linux is not None:
        return Outcome(name)
    symbols, machine = journey.kernel_a.symbols, journey.machine
    tables = machine.cpu.walk(int(loaded.image.control_va)).steps
    leaf = tables[-1].address
    told = [
        (symbols["kexec_params"], symbols["kexec_params"] + KexecParams.SIZE),
        (symbols["busy_map"], symbols["busy_map"] + _BUSY_MAP_BYTES),
        (leaf, leaf + tables[-1].format.entry_size),
    ]
    in_place = journey.scene.target_range.pages() if journey.scene.is_reserved else ()
    first = next(before.differences(machine.ram, told, frozenset({*loaded.image.pfns, *in_place})), None)
    if first is None:
        return Outcome(name)
    if first.address & -PAGE_SIZE in {step.address & -PAGE_SIZE for step in tables}:
        entry, why = "B-27", "A runs on this page table"
    elif first.pfn - 1 == int(loaded.image.table_root) >> PAGE_SHIFT:
        entry, why = "B-08", "it follows the top-level table of the load, as the second half of an 8 KiB table would"
    else:
        entry, why = "", "no page of the load is there"
    finding = finding_here(
        journey, name, "a load changes no memory but its own",
        f"{show_phys(first.address)} was {first.expected.hex(' ')}, is {first.actual.hex(' ')}, a page of "
        f"{machine.owners.at(first.address)}",
        [f"like {entry}: {why}" if entry else why], catalogue=entry, address=first.address,
    )  # fmt: skip
    return Outcome(name, (finding,))


def stub_bytes(journey: Journey) -> Outcome:
    """The control page holds the stub as it was assembled, but for the words that the loader fills."""
    name = "stub bytes"
    loaded = journey.require_loaded()
    if loaded.linux is not None:
        return Outcome(name)
    here = journey.machine.ram.read(loaded.stub.org, len(loaded.stub.code))
    at = _first_difference(loaded.stub, here)
    if at is None:
        return Outcome(name)
    place = loaded.stub.symbol_at(loaded.stub.org + at)
    finding = finding_here(
        journey, name, f"{place}: {loaded.stub.code[at : at + 8].hex(' ')}, as assembled", here[at : at + 8].hex(" "),
        [f"like B-10: what lies in the control page {show_phys(loaded.image.control_page)} is not the stub"],
        catalogue="B-10",
    )  # fmt: skip
    return Outcome(name, (finding,))


def _first_difference(stub: Image, here: bytes) -> int | None:
    filled = {
        stub.symbols[symbol] - stub.org + byte
        for symbol, size in _FILLED.items()
        if symbol in stub.symbols
        for byte in range(size)
    }
    differing = (at for at, (one, other) in enumerate(zip(stub.code, here, strict=True)) if one != other)
    return next((at for at in differing if at not in filled), None)


def machine_checks_kept(journey: Journey, move: Movement) -> Outcome:
    """x86_64: CR4.MCE is for the peer as A had it: a guest of a hypervisor may not clear it, and need not have it."""
    name = "machine checks"
    was, now = move.state["cr4"], journey.machine.cpu.registers()["cr4"]
    if journey.scene.arch.bits == 32 or journey.require_loaded().linux is not None or not (was ^ now) & Cr4.MCE:
        return Outcome(name)
    finding = finding_here(
        journey, name, f"CR4.MCE={was >> 6 & 1} at the peer's entry, as in A", f"CR4.MCE={now >> 6 & 1}",
        [f"like B-15: CR4 was {was:#x} in A and is {now:#x}; a TDX guest that clears MCE dies"], catalogue="B-15",
    )  # fmt: skip
    return Outcome(name, (finding,))
