"""Trials of the transfer copy: what is moved over is backed up before, and the inverse list brings it back."""

from __future__ import annotations

from emu.assembler import assemble_text
from emu.kexec.layout import Ind, RelocateFlag
from emu.trials.bench import Bench
from emu.trials.leaving import PRESERVE
from emu.trials.places import LOW_TARGET
from emu.trials.returning import enter_a, saved_context
from emu.units import PAGE_SIZE

COPY = int(RelocateFlag.COPY)
_PEER = {
    64: "movabsq ${:#x}, %rcx; movq %rcx, 8(%rsp); movl $1, %r11d; incl wasted(%rip); ret; wasted: .long 0",
    32: "movl ${:#x}, 4(%esp); movl $1, %ecx; incl wasted; ret; wasted: .long 0",
}
_RETURNED = {64: (0x123456789A, 0), 32: (0x1234560, 0)}
_BACKUP = 0x41


def _lists(bench: Bench, peer: str) -> tuple[int, int]:
    """A peer in a source page; the head of the list (backup, then load) and of its inverse, which the stub is told."""
    at = bench.at
    image = assemble_text(peer, org=at.target, bits=bench.arch.bits)
    bench.machine.ram.write(at.source, image.code.ljust(PAGE_SIZE, b"\xcc"))
    backup = at.source + _BACKUP * PAGE_SIZE
    taken = (at.target, at.target + PAGE_SIZE, LOW_TARGET)
    flag = Ind
    there: list[int] = [backup | flag.DESTINATION, *(page | flag.SOURCE for page in taken)]
    load: list[int] = [at.target | flag.DESTINATION, at.source | flag.SOURCE, at.source + PAGE_SIZE | flag.SOURCE]
    back: list[int] = [at.target | flag.DESTINATION, backup | flag.SOURCE, backup + PAGE_SIZE | flag.SOURCE]
    back += [LOW_TARGET | flag.DESTINATION, backup + 2 * PAGE_SIZE | flag.SOURCE, int(flag.DONE)]
    inverse = at.lists + 8 * PAGE_SIZE
    bench.put(inverse, *back)
    slot = "pa_inverse_map" if bench.arch.bits == 64 else "cp_pa_inverse_map"
    bench.put(bench.symbols[slot], inverse | flag.INDIRECTION)
    return bench.write_list(*there, *load, int(flag.DONE)), inverse | flag.INDIRECTION


def copied(bench: Bench) -> None:
    """Out by a copy and back by the inverse one; what the peer did to its pages is lost, its source pages are kept."""
    at = bench.at
    also = (0, int(RelocateFlag.SWAP)) if bench.arch.bits == 64 else (0, 0)
    for extra, returned in zip(also, _RETURNED[bench.arch.bits], strict=True):
        bench.reset_memory()
        head, _ = _lists(bench, _PEER[bench.arch.bits].format(returned))
        expected = bench.expect()
        backup = at.source + _BACKUP * PAGE_SIZE
        for number, page in enumerate((at.target, at.target + PAGE_SIZE, LOW_TARGET)):
            expected.write(backup + number * PAGE_SIZE, bench.machine.ram.read(page, PAGE_SIZE))
        bench.call(head, at.target, PRESERVE | COPY | extra)
        bench.check_back_in_a(returned)
        bench.check_memory(expected, (at.swap + PAGE_SIZE - 64, at.swap + PAGE_SIZE))  # the peer's first stack
        if bench.wrong:
            return


def copied_entries(bench: Bench) -> None:
    """Back by the jump entries, with the inverse list and the flag for it."""
    at = bench.at
    head, inverse = _lists(bench, "hlt")
    before = bench.expect()
    bench.call(head, at.target, PRESERVE | COPY)
    if not bench.check_halted(at.target + 1):
        return
    expected = bench.carry_out(inverse, exchange=False)
    for page in (at.target, LOW_TARGET):
        bench.check("the model", before.read(page, PAGE_SIZE).hex(), expected.read(page, PAGE_SIZE).hex())
    enter_a(bench, inverse, COPY, expected, saved=saved_context(bench))
