"""The same claims on another machine: one bootable image for each file and mode, results compared with ours.

A claim goes there as it begins, at the first instruction of its file, and is compared where it has said its result:
memory, registers, console.  What is driven from outside, ends otherwise than by ``holds``, or says itself that only
this machine can run it stays here, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from emu.kexec.arch import Arch
from emu.oracle.case import Case
from emu.oracle.image import OracleImage, build_image
from emu.suite.claim_file import Claim
from emu.suite.runner import Runner
from emu.units import PAGE_MASK, PAGE_SIZE

_LEAST_GAP = 16


def stays_here(claim: Claim) -> str:
    """Why ``claim`` is run on this machine only; empty where another can run it."""
    if claim.only:
        return claim.only
    if claim.driven:
        return f"somebody outside the machine is part of it: {claim.driven.split()[0]}"
    return f"it ends with a {claim.ends}" if claim.ends else ""


def cases(runner: Runner, claims: Sequence[Claim]) -> Iterator[Case]:
    """Each claim as a case that another machine can run."""
    world, program = runner.world, runner.program
    machine, mode = world.machine, runner.mode
    for claim in claims:
        world.rewind()
        machine.ram.write(program.symbols["current_claim"], claim.address.to_bytes(8, "little"))
        registers = machine.cpu.registers()
        gap = _gap(runner)
        yield Case(
            name=f"{runner.file.name} {mode}: {claim.name}",
            arch=mode.arch or Arch.I386,
            memory=[
                (part.start, bytearray(machine.ram.read(part.start, part.end - part.start)))
                for part in machine.memory_map.ram_ranges
            ],
            registers=registers,
            end=program.symbols["ended"],
            end_phys=program.symbols["ended"],
            moved={},
            entry=gap,
            entry_phys=gap,
            pdpts=frozenset(_table_pages(runner)) if mode.bits == 32 else frozenset(),
        )


def image_of(runner: Runner, claims: Sequence[Claim]) -> OracleImage:
    """All of ``claims`` in one image, one after the other."""
    return build_image(list(cases(runner, claims)), in_place=False)


def _table_pages(runner: Runner) -> Iterator[int]:
    """Where the world and claims have page tables, those with PDPTEs among them."""
    at = runner.program.constants
    for name in ("TABLES", "KEXEC_TABLES", "FREE"):
        if f"{name}_BEGIN" in at:
            yield from range(at[f"{name}_BEGIN"], at[f"{name}_END"], PAGE_SIZE)


def _gap(runner: Runner) -> int:
    """Where the code that loads a case's registers may lie: in the room behind ``ended``, and behind the results'."""
    symbols = runner.program.symbols
    first, last = symbols["room_to_load"], symbols["end_of_room"]
    if first & ~PAGE_MASK != symbols["begin"] & ~PAGE_MASK or last - first < _LEAST_GAP:
        raise AssertionError("the room is in another page than the first instruction")
    return -(-first // 16) * 16
