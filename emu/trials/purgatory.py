"""Trials of purgatory: the kernel is entered as its boot protocol says, and learns where to go back to."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emu.assembler import Image
from emu.journey.memory import RamImage
from emu.journey.stubs import add_to_sum
from emu.kexec.layout import PURGATORY_REGIONS, Ind, PostCode
from emu.machine import events as ev
from emu.machine.cpustate import DS, ES, SS
from emu.trials.bench import GENERAL, JUNK, TICK_LIMIT, Bench
from emu.trials.leaving import PRESERVE
from emu.units import PAGE_SIZE
from emu.x86.bits import Eflags

_FLAGS = int(Eflags.IF | Eflags.DF | Eflags.TF | Eflags.NT | Eflags.AC)
BOOT_PARAMS = 0x12_3456_0000
OPTION = b" kexec_jump_back_entry=0x%x\0"
POST_PORT = 0x80
LINE_AT = 2 * PAGE_SIZE + 0x31
"""Where the NUL of the command line is, from the first page of what is summed up."""
LOW_LINE = 0x4000
"""Another place for it, which has no bit in common with the addresses in purgatory's page."""
_ROOM = 64
"""Bytes from the NUL on that are there to be appended to."""
_JUNK_SELECTOR = 0x28


def _regions(bench: Bench) -> list[tuple[int, int]]:
    segment = bench.at.segment
    return [(segment, PAGE_SIZE), (segment + PAGE_SIZE + 0x40, 0x24), (segment + PAGE_SIZE + 0x800, 4)]


def _line(bench: Bench) -> int:
    return bench.at.segment + LINE_AT


def _sum(bench: Bench, regions: Sequence[tuple[int, int]]) -> int:
    total = 0
    for start, size in regions:
        total = add_to_sum(bench.machine.ram.read(start, size), total)
    return total


def _load(bench: Bench, regions: Sequence[tuple[int, int]], *, line: int) -> Image:
    """Purgatory in its page, filled as the loader does; ``line`` is where the command line ends, 0: append nothing."""
    at = bench.at
    image = bench.place("purgatory", at.purgatory)
    symbols = image.symbols
    bench.put(symbols["kernel_entry"], at.halt)
    bench.put(symbols["boot_params"], BOOT_PARAMS & bench.mask)
    bench.put(symbols["cmdline_end"], line)
    if line:
        bench.machine.ram.write(line, b"\0".ljust(_ROOM, b"\xee"))
    bench.put(symbols["sum_regions"], *(word for region in regions for word in region))
    bench.machine.ram.write(symbols["sum_expected"], _sum(bench, regions).to_bytes(4, "little"))
    return image


def _come(bench: Bench, flags: int, junk: int = JUNK) -> None:
    """Control comes to the peer, so far one HLT; the registers that it finds mean nothing, nor do its segments."""
    bench.call(int(Ind.DONE), bench.at.halt, flags)
    if bench.check_halted(bench.at.halt + 1):
        bench.set(**dict.fromkeys(GENERAL[bench.arch.bits], junk))
        for index in (DS, ES, SS):
            cpu = bench.machine.cpu
            cpu.set_segment(index, replace(cpu.segment(index), selector=_JUNK_SELECTOR))


def _enter(bench: Bench, image: Image, back: int, stack: int) -> None:
    """Run purgatory, and look at what the kernel then finds."""
    at, word, symbols = bench.at, bench.word, image.symbols
    bench.run(symbols["purgatory_start"])
    if not bench.check_halted(at.halt + 1):
        return
    state = bench.machine.cpu.registers()
    wanted = {"cs": 0x10, "ds": 0x18, "es": 0x18, "ss": 0x18, "rsi": BOOT_PARAMS & bench.mask, "rbx": 0, "rdi": 0}
    for name, value in (wanted | {"rbp": 0}).items():
        bench.check(name, value, state[name])
    bench.check("flags", 0, state["rflags"] & _FLAGS)
    top = symbols["purgatory_stack_top"]
    bench.check("stack pointer", top - 2 * word, state["rsp"])
    bench.check("jump back entry", back, bench.get(symbols["jump_back_entry"]))
    bench.check("callee's stack", stack, bench.get(symbols["callee_stack"]))
    bench.check("words on the stack", (back, stack), (bench.get(top - 2 * word), bench.get(top - word)))
    bench.check("GDTR", (symbols["gdt"], 0x1F), (state["gdtr.base"], state["gdtr.limit"]))


def _way_back(bench: Bench, flags: int) -> tuple[int, int]:
    """The word that purgatory finds on its stack, and where that is."""
    if flags & PRESERVE:
        return bench.symbols["back_from_peer"], bench.at.swap + PAGE_SIZE - 2 * bench.word
    return 0, bench.at.control + PAGE_SIZE - bench.word


def _whole(bench: Bench, flags: int, *, line: int) -> None:
    image = _load(bench, _regions(bench), line=line)
    _come(bench, flags)
    back, stack = _way_back(bench, flags)
    expected = RamImage(bench.machine.ram)
    if line and back:
        expected.write(line, OPTION % back)
    _enter(bench, image, back, stack)
    _check_memory(bench, expected, stack)


def _check_memory(bench: Bench, expected: RamImage, stack: int) -> None:
    """All of memory but purgatory's page, and the one word for which the header says that there is room."""
    at = bench.at
    bench.check_memory(expected, (at.purgatory, at.purgatory + PAGE_SIZE), (stack - bench.word, stack))


def purgatory_plain(bench: Bench) -> None:
    """Nobody to go back to: the command line stays as it is."""
    _whole(bench, 0, line=_line(bench))


def purgatory_preserve(bench: Bench) -> None:
    """Called: the return address is where to jump back to, and the command line says so."""
    _whole(bench, PRESERVE, line=_line(bench))


def purgatory_silent(bench: Bench) -> None:
    """Called, but the loader wants nothing appended."""
    _whole(bench, PRESERVE, line=0)


def purgatory_numbers(bench: Bench) -> None:
    """The number on the command line: each digit, no leading zeros, as long as a word."""
    digits = 0x0123456789ABCDEF
    for back in (digits, 0xFEDCBA9876543210, 0x1, 0x90AF, 0x8000000000000000 >> (64 - bench.arch.bits)):
        bench.reset_memory()
        line = LOW_LINE if back == 1 else _line(bench)
        image = _load(bench, _regions(bench), line=line)
        _come(bench, PRESERVE, junk=0)
        if bench.arch.bits == 64:
            bench.machine.engine.rflags |= Eflags.DF
        if bench.wrong:
            return
        word = back & bench.mask
        stack = bench.machine.cpu.registers()["rsp"]
        bench.put(stack, word)
        expected = RamImage(bench.machine.ram)
        expected.write(line, OPTION % word)
        _enter(bench, image, word, stack)
        _check_memory(bench, expected, stack)


def purgatory_again(bench: Bench) -> None:
    """Entered once more, by a peer that kept its memory and changed it: neither summed up nor appended again."""
    image = _load(bench, _regions(bench), line=_line(bench))
    _come(bench, PRESERVE)
    back, stack = _way_back(bench, PRESERVE)
    _enter(bench, image, back, stack)
    if bench.wrong:
        return
    machine = bench.machine
    machine.ram.write(bench.at.segment, b"something else")
    expected = RamImage(machine.ram)
    bench.set(**dict.fromkeys(GENERAL[bench.arch.bits], JUNK), rsp=stack)
    _enter(bench, image, back, stack)
    _check_memory(bench, expected, stack)


def purgatory_regions(bench: Bench) -> None:
    """As many ranges as there is room for, and none at all."""
    segment = bench.at.segment
    many = [(segment + 0x80 * number, 8 + 4 * (number & 1)) for number in range(PURGATORY_REGIONS)]
    for regions in (many, []):
        bench.reset_memory()
        image = _load(bench, regions, line=0)
        _come(bench, PRESERVE)
        _enter(bench, image, *_way_back(bench, PRESERVE))


def purgatory_mismatch(bench: Bench) -> None:
    """One bit of what was loaded is another: said on the POST port, and no way out; the command line is not touched."""
    machine = bench.machine
    regions = _regions(bench)
    last = regions[-1][0] + regions[-1][1] - 1
    for address in (regions[0][0], regions[0][0] + PAGE_SIZE - 1, regions[1][0] + 0x11, last):
        bench.reset_memory()
        image = _load(bench, regions, line=_line(bench))
        machine.ram.write(address, bytes([machine.ram.read(address, 1)[0] ^ 0x10]))
        _come(bench, PRESERVE)
        expected = RamImage(machine.ram)
        _, stack = _way_back(bench, PRESERVE)
        with bench.port_writes() as written:
            bench.run(image.symbols["purgatory_start"])
        halted = bench.outcome
        bench.check("port writes", [(POST_PORT, 1, int(PostCode.SUM_MISMATCH))], written)
        if not isinstance(halted, ev.Halted) or halted == ev.Halted(bench.at.halt + 1):
            bench.wrong.append(f"the run ended in {halted}")
        bench.outcome = machine.run(TICK_LIMIT)  # something that is no exception may end a HLT
        bench.check("woken up", halted, bench.outcome)
        _check_memory(bench, expected, stack)
        if bench.wrong:
            return
