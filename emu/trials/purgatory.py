"""Trials of purgatory: the kernel is entered as its boot protocol says, and learns where to go back to."""

from __future__ import annotations

from emu.kexec.layout import Ind
from emu.trials.bench import GENERAL, Bench
from emu.trials.leaving import PRESERVE
from emu.units import PAGE_SIZE
from emu.x86.bits import Eflags

_FLAGS = int(Eflags.IF | Eflags.DF | Eflags.TF | Eflags.NT | Eflags.AC)
BOOT_PARAMS = 0x12_3456_0000


def _enter(bench: Bench, flags: int) -> None:
    at, word = bench.at, bench.word
    params = BOOT_PARAMS & bench.mask
    image = bench.place("purgatory", at.purgatory)
    symbols = image.symbols
    bench.put(symbols["kernel_entry"], at.halt)
    bench.put(symbols["boot_params"], params)
    bench.call(int(Ind.DONE), at.halt, flags)  # so far a peer of one HLT; the registers that it finds mean nothing
    if not bench.check_halted(at.halt + 1):
        return
    bench.set(**dict.fromkeys(GENERAL[bench.arch.bits], 0xDEADBEECDEADBEEC))
    bench.run(symbols["purgatory_start"])
    if not bench.check_halted(at.halt + 1):
        return
    state = bench.machine.cpu.registers()
    wanted = {"cs": 0x10, "ds": 0x18, "es": 0x18, "ss": 0x18, "rsi": params, "rbx": 0, "rdi": 0, "rbp": 0}
    for name, value in wanted.items():
        bench.check(name, value, state[name])
    bench.check("flags", 0, state["rflags"] & _FLAGS)
    top = symbols["purgatory_stack_top"]
    bench.check("stack pointer", top - 2 * word, state["rsp"])
    back, stack = bench.get(symbols["jump_back_entry"]), bench.get(symbols["callee_stack"])
    if flags & PRESERVE:
        bench.check("jump back entry", bench.symbols["back_from_peer"], back)
        bench.check("callee's stack", at.swap + PAGE_SIZE - 2 * word, stack)
    else:
        bench.check("jump back entry", 0, back)
        bench.check("callee's stack", at.control + PAGE_SIZE - word, stack)
    bench.check("words on the stack", (back, stack), (bench.get(top - 2 * word), bench.get(top - word)))
    bench.check("GDTR", (symbols["gdt"], 0x1F), (state["gdtr.base"], state["gdtr.limit"]))


def purgatory_plain(bench: Bench) -> None:
    """Nobody to go back to."""
    _enter(bench, 0)


def purgatory_preserve(bench: Bench) -> None:
    """Called: the return address is where to jump back to."""
    _enter(bench, PRESERVE)
