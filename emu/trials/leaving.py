"""Trials of the way out of A: how the next kernel is entered."""

from __future__ import annotations

from emu.kexec.layout import Ind, RelocateFlag
from emu.machine import events as ev
from emu.trials import places
from emu.trials.bench import GENERAL, TICK_LIMIT, Bench
from emu.units import PAGE_SIZE
from emu.x86.bits import Cr0, Cr4, Eflags

PRESERVE = int(RelocateFlag.PRESERVE_CONTEXT)
INCOHERENT = int(RelocateFlag.CACHE_INCOHERENT)
SWAP = int(RelocateFlag.SWAP)
_CLEAN_FLAGS = int(Eflags.IF | Eflags.DF | Eflags.TF | Eflags.NT | Eflags.AC)
_WBINVD = b"\x0f\x09"


def plain(bench: Bench) -> None:
    """Without a way back: all registers 0, and 0 above the entry on the control page's stack."""
    # Pages have moved, and flags were given, so that every register has been used.
    head = bench.write_list(bench.at.target | Ind.DESTINATION, bench.at.source | Ind.SOURCE, int(Ind.DONE))
    bench.call(head, bench.at.halt, SWAP if bench.arch.bits == 64 else 0)
    if not bench.check_halted(bench.at.halt + 1):
        return
    state = bench.machine.cpu.registers()
    for name in GENERAL[bench.arch.bits]:
        bench.check(name, 0, state[name])
    stack = bench.at.control + PAGE_SIZE - bench.word
    bench.check("stack pointer", stack, state["rsp"])
    bench.check("word on the stack", 0, bench.get(stack))
    next_kernels_mode(bench)


def preserve(bench: Bench) -> None:
    """With a way back: called on the swap page, with a slot above the return address."""
    bench.call(int(Ind.DONE), bench.at.halt, PRESERVE)
    if not bench.check_halted(bench.at.halt + 1):
        return
    stack = bench.at.swap + PAGE_SIZE - 2 * bench.word
    bench.check("stack pointer", stack, bench.machine.cpu.registers()["rsp"])
    bench.check("return address", bench.symbols["back_from_peer"], bench.get(stack))
    bench.check("slot", bench.at.halt, bench.get(stack + bench.word))
    next_kernels_mode(bench)


def next_kernels_mode(bench: Bench) -> None:
    """The processor is as the stub's header says that the next kernel finds it."""
    state = bench.machine.cpu.registers()
    dropped = places.CR0_DROPPED | (0 if bench.arch.bits == 64 else Cr0.PG)
    bench.check("CR0", int(places.CR0_A & ~dropped), state["cr0"])
    bench.check("flags", 0, state["rflags"] & _CLEAN_FLAGS)
    if bench.arch.bits == 32:
        bench.check("CR4", 0, state["cr4"])
        bench.check("CR3", 0, state["cr3"])
        return
    kept = places.cr4_of_a(bench.arch) & (Cr4.PAE | Cr4.LA57 | Cr4.MCE)
    bench.check("CR4", int(kept), state["cr4"])
    bench.check("CR3", bench.at.kexec_tables, state["cr3"])
    gdt, idt = bench.symbols["kexec_debug_gdt"], bench.symbols["kexec_debug_idt"]
    own = {"gdtr.base": gdt, "gdtr.limit": 0x1F, "idtr.base": idt, "idtr.limit": 0xFF}
    for name, value in (own | {"cs": 0x10, "ss": 0x18, "ds": 0x18, "es": 0x18}).items():
        bench.check(name, value, state[name])
    flags = bench.machine.ram.read(idt, 0x100)
    for vector in range(16):
        gate = int.from_bytes(flags[16 * vector : 16 * vector + 16], "little")
        bench.check(f"attributes of gate {vector}", (0x8E00, 0x10), (gate >> 32 & 0xFFFF, gate >> 16 & 0xFFFF))


def caches(bench: Bench) -> None:
    """x86_64: WBINVD runs when it is asked for, before a page moves, and not otherwise."""
    machine, at = bench.machine, bench.at
    image = bench.stubs.at("relocate_new_kernel", at.control)
    code = {line.address: image.code[line.address - image.org :][: line.size] for line in image.lines}
    places_of = [address for address, text in code.items() if text == _WBINVD]
    before = machine.ram.read(at.target, 8)
    for flags in (0, INCOHERENT, PRESERVE, PRESERVE | INCOHERENT):
        bench.reset_memory()
        head = bench.write_list(at.target | Ind.DESTINATION, at.source | Ind.SOURCE, int(Ind.DONE))
        for address in places_of:
            machine.break_at(address)
        bench.call(head, at.halt, flags)
        seen = isinstance(bench.outcome, ev.Breakpoint)
        bench.check(f"WBINVD with flags {flags:#x}", bool(flags & INCOHERENT), seen)
        if seen:
            bench.check("the target page at WBINVD", before, machine.ram.read(at.target, 8))
            bench.outcome = machine.run(TICK_LIMIT)
        for address in places_of:
            machine.clear_break(address)
        bench.check_halted(at.halt + 1)
        if machine.ram.read(at.target, 8) == before:
            bench.wrong.append("no page moved")


def serialised(bench: Bench) -> None:
    """Whatever moved, code or tables: a serialising instruction comes after it and before the next kernel."""
    at = bench.at
    for flags in (0, PRESERVE):
        bench.reset_memory()
        head = bench.write_list(at.target | Ind.DESTINATION, at.source | Ind.SOURCE, int(Ind.DONE))
        bench.call(head, at.halt, flags)
        bench.check_halted(at.halt + 1)
        _check_serialised(bench)


def _check_serialised(bench: Bench) -> None:
    stored = bench.machine.loop.last_string
    if stored is not None and bench.machine.hazards.serial <= stored[0]:
        bench.wrong.append("nothing serialised after the last page was stored")
