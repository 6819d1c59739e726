"""Trials of the way back: A is as it was, whatever the peer did, and by whatever entry it came."""

from __future__ import annotations

from emu.assembler import Image
from emu.journey.memory import RamImage
from emu.machine import events as ev
from emu.trials.bench import Bench
from emu.trials.leaving import PRESERVE, SWAP
from emu.units import PAGE_SIZE
from emu.x86.bits import Dr7

SPOIL = {
    64: """
        movl $0xaaa8, %ebx; movl %ebx, %ebp; movl %ebx, %r12d; movl %ebx, %r13d; movl %ebx, %r14d; movl %ebx, %r15d
        movl %ebx, %r10d; movl %ebx, %r11d; movl %ebx, %r8d; movl %ebx, %r9d
        movl $0xc0000080, %ecx; rdmsr; andl $0xfffff7fe, %eax; wrmsr
        movq %cr0, %rax; orl $0x5000c, %eax; movq %rax, %cr0
        movq %cr4, %rax; orl $0x900680, %eax; movq %rax, %cr4
        lgdt nothing(%rip)
        lidt nothing(%rip)
        movabsq ${peer_tables:#x}, %rax; movq %rax, %cr3
        pushq $0x44402; popfq
        ret
        nothing: .word 0; .quad 0
    """,
    32: """
        movl $0xaaa8, %ebx; movl %ebx, %ebp; movl %ebx, %esi; movl %ebx, %edi
        movl $0xc0000080, %ecx; rdmsr; xorl $0x800, %eax; wrmsr
        movl $0x4b0, %eax; movl %eax, %cr4
        movl %cr0, %eax; orl $0x5000c, %eax; movl %eax, %cr0
        movl $0xbad000, %eax; movl %eax, %cr3
        call here; here: popl %eax; lgdt nothing - here(%eax)
        lidt table - here(%eax)
        pushl $0x44402; popfl
        ret
        nothing: .word 0; .long 0
        table: .word 0x7ff; .long 0xbad000
    """,
}
CALL_BACK = {
    64: """
        movq (%rsp), %rax; leaq stack(%rip), %rsp
        incl visits(%rip); std; call *%rax
        again: addl $0x10, visits(%rip); popq %rax; call *%rax
        third: hlt
        .balign 8; visits: .long 0; .fill 64, 1, 0; stack:
    """,
    32: """
        movl (%esp), %eax; movl $stack, %esp
        incl visits; std; call *%eax
        again: addl $0x10, visits; popl %eax; call *%eax
        third: hlt
        .balign 8; visits: .long 0; .fill 64, 1, 0; stack:
    """,
}
SLOT = {64: "movabsq $0x123456789a, %rcx; movq %rcx, 8(%rsp); ret", 32: "movl $0x1234560, 4(%esp); ret"}


def _swap_page(bench: Bench) -> tuple[int, int]:
    return bench.at.swap, bench.at.swap + PAGE_SIZE


def spoiled(bench: Bench) -> None:
    """The peer changes all that it may, and only rets."""
    head, _ = bench.callee(SPOIL[bench.arch.bits].format(peer_tables=bench.at.peer_tables))
    before = bench.expect()
    bench.call(head, bench.at.target, PRESERVE)
    bench.check_back_in_a(bench.at.target)
    bench.check_memory(before, _swap_page(bench))
    if bench.word == 4:
        _no_table(bench)


def slot(bench: Bench) -> None:
    """The peer writes above its return address where to be entered next time: A gets that."""
    head, _ = bench.callee(SLOT[bench.arch.bits])
    before = bench.expect()
    bench.call(head, bench.at.target, PRESERVE)
    bench.check_back_in_a(0x123456789A if bench.arch.bits == 64 else 0x1234560)
    bench.check_memory(before, _swap_page(bench))


def again(bench: Bench) -> None:
    """A peer that calls back is entered again where it left, twice, and its memory is kept in between."""
    at = bench.at
    head, symbols = bench.callee(CALL_BACK[bench.arch.bits])
    before = bench.expect()
    entry = at.target
    for number, (name, visits) in enumerate((("again", 1), ("third", 0x11))):
        bench.call(head, entry, PRESERVE)
        bench.check_back_in_a(symbols[name])
        kept = at.source, at.source + PAGE_SIZE
        bench.check_memory(before, _swap_page(bench), kept)
        bench.check(f"visits {number}", visits, bench.get(symbols["visits"] - at.target + at.source) & 0xFF)
        if bench.wrong:
            return
        entry = symbols[name]


def _suspend(bench: Bench) -> tuple[int, RamImage]:
    """A has jumped and the peer stands: the list's head, and memory as it was before."""
    head, _ = bench.callee("hlt")
    before = bench.expect()
    bench.call(head, bench.at.target, PRESERVE)
    bench.check_halted(bench.at.target + 1)
    return head, before


def restores(bench: Bench) -> None:
    """The restore routines, as C enters them: any number of times, and the saved context is not stored over."""
    head, before = _suspend(bench)
    if bench.wrong:
        return
    machine = bench.machine
    back = bench.carry_out(head, exchange=True)
    for one in list(back.differences(machine.ram, ())):
        page = one.address & -PAGE_SIZE
        machine.ram.write(page, back.read(page, PAGE_SIZE))
    context = slice(bench.symbols["saved_context"], bench.symbols["saved_context_end"])
    saved = machine.ram.read(context.start, context.stop - context.start)
    state = machine.snapshot()
    for name, returned in (("restore_after_save", 1), ("restore_after_resume", 2), ("restore_after_resume", 2)):
        machine.restore(state)
        bench.junk()
        bench.run(bench.symbols[name])
        bench.check_back_in_a(returned)
        bench.check_memory(before, _swap_page(bench))
        bench.check("saved context", saved.hex(), machine.ram.read(context.start, len(saved)).hex())
        if bench.wrong:
            return


def _place_entry(bench: Bench, head: int, flags: int) -> Image:
    """The entry code page and the second copy of the stub, filled as the loader does."""
    at, word = bench.at, bench.word
    second = bench.place("relocate_new_kernel", at.second)
    bench.fill(second, at.second, at.second_swap)
    entry = bench.place("jump_entry", at.entry)
    filled: dict[str, tuple[int, ...]] = {
        "je_head": (head,),
        "je_relocate": (second.symbols["relocate_new_kernel"],),
        "je_start_saved": (bench.symbols["restore_after_save"],),
        "je_start_resumed": (bench.symbols["restore_after_resume"],),
        "je_flags": (flags,),
    }
    if word == 8:
        filled |= {"je_pa_control": (at.second,)}
    else:
        has_pae = 0x100 if bench.arch.is_pae else 0
        filled |= {"je_page_list": (at.second, at.second, at.second_tables, at.second_swap), "je_has_pae": (has_pae,)}
    for name, values in filled.items():
        if name in entry.symbols:
            bench.put(entry.symbols[name], *values)
    return entry


def saved_context(bench: Bench) -> tuple[int, bytes]:
    """Where the saved context is, and what it holds."""
    start, end = bench.symbols["saved_context"], bench.symbols["saved_context_end"]
    return start, bench.machine.ram.read(start, end - start)


def entries(bench: Bench) -> None:
    """Both jump entries put the pages back and return to A, from a processor in which nothing means anything."""
    head, before = _suspend(bench)
    if bench.wrong:
        return
    swapped = bench.carry_out(head, exchange=True, swap=bench.at.second_swap)
    enter_a(bench, head, SWAP if bench.word == 8 else 0, before, saved=saved_context(bench), swapped=swapped)


def _no_table(bench: Bench) -> None:
    table = bench.machine.cpu.idtr
    bench.check("IDTR", (0, 0), (table.base, table.limit))


def _no_table_yet(bench: Bench, entry: int) -> None:
    """i386: where the pages are about to move nobody's IDT is in force, for a stub has none of its own."""
    bench.machine.break_at(bench.at.second)
    bench.run(entry)
    bench.machine.clear_break(bench.at.second)
    _no_table(bench)


def enter_a(
    bench: Bench,
    head: int,
    flags: int,
    expected: RamImage,
    *,
    saved: tuple[int, bytes],
    swapped: RamImage | None = None,
) -> None:
    """A peer stands: enter A by each jump entry, which carries out the list at ``head``; ``expected`` is memory then.

    ``swapped`` has what the second swap page then holds, if the pages are exchanged.
    """
    at, machine = bench.at, bench.machine
    entry = _place_entry(bench, head, flags)
    code = machine.ram.read(at.entry, len(entry.code))
    bounce = (swapped or bench.expect()).read(at.second_swap, PAGE_SIZE)
    state = machine.snapshot()
    for name, returned in (("after_image_save", 1), ("after_resume", 2)):
        machine.restore(state)
        bench.junk()
        if bench.word == 4:
            _no_table_yet(bench, entry.symbols[name])
            machine.restore(state)
            bench.junk()
        machine.engine.set_dr(0, int(bench.arch.direct(at.code)) + 2)
        machine.engine.set_dr(7, 0x400 | Dr7.L0)
        bench.run(entry.symbols[name])
        bench.check_back_in_a(returned)
        bench.check("DR7", 0x400, machine.cpu.registers()["dr7"])
        pages = [(page, page + PAGE_SIZE) for page in (at.second, at.second_swap, at.entry)]
        bench.check_memory(expected, _swap_page(bench), *pages)
        bench.check("swap page", bounce.hex(), machine.ram.read(at.second_swap, PAGE_SIZE).hex())
        bench.check("saved context", saved[1].hex(), machine.ram.read(saved[0], len(saved[1])).hex())
        bench.check("entry page", code.hex(), machine.ram.read(at.entry, len(code)).hex())
        if bench.word == 4:
            written = [one for one in machine.events[state.events :] if isinstance(one, ev.ControlWrite)]
            cleared = any(one.register == "cr4" and not one.new for one in written)
            bench.check("CR4 cleared", bench.arch.is_pae, cleared)
        if bench.wrong:
            return


def unchanged_code(bench: Bench) -> None:
    """Code that runs where it is linked is not changed by running."""
    at = bench.at
    size = bench.symbols["saved_context"] - at.control
    before = bench.machine.ram.read(at.control, size)
    head, _ = bench.callee("ret")
    bench.call(head, at.target, PRESERVE)
    bench.check_back_in_a(at.target)
    bench.check("code", before.hex(), bench.machine.ram.read(at.control, size).hex())


def linked_elsewhere(bench: Bench) -> None:
    """i386: the stub runs in another page than that for which it was linked; x86_64 code does not depend on it."""
    stubs, at = bench.stubs, bench.at
    if bench.arch.bits == 64:
        for name in ("relocate_new_kernel", "jump_entry", "purgatory"):
            here, there = (stubs.assembled(name, org).code.hex() for org in (0, 0x7FFE_1234_5000))
            bench.check(f"bytes of {name} for another address", here, there)
        return
    for org in (0, 0x123000):
        bench.reset_memory()
        for name in ("relocate_new_kernel", "jump_entry", "purgatory"):
            here, there = stubs.at(name, org).code.hex(), stubs.assembled(name, org).code.hex()
            bench.check(f"bytes of {name} for another address", there, here)
        bench.machine.ram.write(at.control, stubs.at("relocate_new_kernel", org).code)
        head, _ = bench.callee("ret")
        before = bench.expect()
        bench.call(head, at.target, PRESERVE)
        bench.check_back_in_a(at.target)
        code = at.control, at.control + PAGE_SIZE
        bench.check_memory(before, _swap_page(bench), code)
