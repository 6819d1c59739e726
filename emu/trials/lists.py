"""Trials of entry lists: the stub does to memory what the reference model says, over all of it."""

from __future__ import annotations

from collections.abc import Sequence

from emu.kexec.layout import Ind, RelocateFlag
from emu.trials import places
from emu.trials.bench import Bench
from emu.trials.leaving import SWAP
from emu.trials.places import Places
from emu.units import PAGE_SIZE

COPY = int(RelocateFlag.COPY)
D, I, DONE, S = (int(flag) for flag in (Ind.DESTINATION, Ind.INDIRECTION, Ind.DONE, Ind.SOURCE))  # noqa: E741 - kimage


def _shapes(at: Places) -> dict[str, Sequence[int]]:
    source, target, lists = at.source, at.target, at.lists
    low, low_source = places.LOW_TARGET, places.LOW_SOURCE
    return {
        "empty": (),
        "null image": (0 | D,),
        "one page": (target | D, source | S),
        "no destination yet": (source | S,),
        "segments": (
            *(target + 0x21 * PAGE_SIZE | D, source + 7 * PAGE_SIZE | S, source | S, low_source | S),
            *(target | D, target + PAGE_SIZE | D, source + 3 * PAGE_SIZE | S),
            *(low | D, source + 9 * PAGE_SIZE | S, source + 2 * PAGE_SIZE | S),
        ),
        "its own source": (target | D, target | S, source | S, target + 2 * PAGE_SIZE | S),
        "ignored": (
            *(target | D, 0, PAGE_SIZE, 0x10, target + 0xFF0, source | S),
            *(0x7F0, source + 4 * PAGE_SIZE, source + PAGE_SIZE | S),
        ),
        "lowest flag counts": (
            *(target | D | S | DONE, source | S | 0xFF0),
            *(target + 5 * PAGE_SIZE | D | I, source + PAGE_SIZE | S, DONE | S, source + 2 * PAGE_SIZE | S),
        ),
        "all flags": (
            *(target | D | S | I | DONE, source | S, target + 3 * PAGE_SIZE | D | DONE, source + PAGE_SIZE | S),
        ),
        "low bits": (target + 0xFF0 | D, source + 0xFF0 | S, source + PAGE_SIZE + 0x7F0 | S),
        "indirection before done": (target | D, lists + 0x10 * PAGE_SIZE + 0xF00 | I | DONE | S),
        "indirection before source": (target | D, lists + 0x10 * PAGE_SIZE | I | S),
    }


SHAPES = tuple(_shapes(Places(0)))
"""The names of all shapes."""


def shape(bench: Bench, name: str, *, exchange: bool) -> None:
    """A list of one shape, carried out for a kernel that does not come back."""
    at = bench.at
    entries = _shapes(at)[name]
    bench.put(at.lists + 0x10 * PAGE_SIZE, at.source + PAGE_SIZE | S, at.source + 3 * PAGE_SIZE | S, DONE)
    head = bench.write_list(*entries, DONE) if entries else DONE
    _carry_out(bench, head, exchange=exchange)


def _carry_out(bench: Bench, head: int, *, exchange: bool) -> None:
    expected = bench.carry_out(head, exchange=exchange)
    # Without a flag x86_64 copies and i386 exchanges.
    flags = (SWAP if exchange else 0) if bench.arch.bits == 64 else (0 if exchange else COPY)
    bench.call(head, bench.at.halt, flags)
    bench.check_halted(bench.at.halt + 1)
    bench.check_memory(expected)


def long_list(bench: Bench) -> None:
    """More entries than one indirection page holds."""
    at = bench.at
    entries = [at.target | D]
    entries += [0x10 for _ in range(PAGE_SIZE // bench.word - 5)]  # ignored, to fill the page
    entries += [at.source + number * PAGE_SIZE | S for number in range(9)]
    _carry_out(bench, bench.write_list(*entries, DONE), exchange=True)
