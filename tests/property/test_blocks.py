"""Instructions counted by blocks or one by one: the same run, however it is cut."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

from hypothesis import given, settings
from hypothesis import strategies as st

from emu.kexec.e820 import MemoryMap
from emu.machine.gated import GatedMachine
from tests import machine_bench
from tests.machine_bench import DATA, ROM, Bench, guest_state
from tests.unit.test_machine import PIT_ONE_SHOT, unmask

PERIODIC = PIT_ONE_SHOT.replace("$0x30", "$0x34").replace("$100", "$3")
HANDLERS = f"""
over: addq $8, (%rsp)
    iretq
paged: addq $8, %rsp
    jmp over
back: iretq
irq: pushq %rax
    incq {DATA + 0x800}
    movb $0x20, %al
    outb %al, $0x20
    popq %rax
    iretq
"""
SKIPPED = 8
"""Bytes that the handlers of faults skip: the instruction and NOPs."""

PIECES = (
    "addq %rbx, %rax\nxorl %eax, %ecx\nrolq $7, %rdx\nleaq 5(%rax,%rcx), %rbx\n",
    "movq %rax, {data}\naddq {data}, %rbx\nmovb %bl, {data} + 8\nincl {data} + 4\n",
    "pushq %rax\npushfq\npopq %r8\npopq %rbx\n",
    "movb %al, changed{n} + 1\nchanged{n}: movl $0x55, %r9d\naddl %r9d, %ebx\n",
    "jmp on{n}\nback{n}: movl $1, %r10d\njmp out{n}\non{n}: movb %bl, back{n} + 2\nnop\njmp back{n}\nout{n}:\n",
    "movl $7, %ecx\nmovl ${data}, %esi\nmovl ${data} + 0x40, %edi\nrep movsb\n",
    "movl $5, %ecx\nmovl ${data} + 0x80, %edi\nrep stosq\nnop\n",
    "nop\nfault{n}: divl zero(%rip)\n.fill fault{n} + {skipped} - ., 1, 0x90\n",
    "movabs $0x700000000000, %rbp\nnop\npage{n}: movl (%rbp), %r11d\n.fill page{n} + {skipped} - ., 1, 0x90\n",
    "incq %rax\nundefined{n}: ud2\n.fill undefined{n} + {skipped} - ., 1, 0x90\n",
    "nop\nint $0x42\nincq %rbx\n",
    "nop\nrdtsc\nmovq %rax, {data} + 0x100\nrdtsc\n",
    "xorl %eax, %eax\ncpuid\nmov %cr0, %rdx\nmov %cr3, %rax\nmov %rax, %cr3\n",
    "movb $0x41, %al\noutb %al, $0xe9\ninb $0x21, %al\nmovzbl %al, %eax\noutb %al, $0x80\n",
    "movl ${data}, %esi\nmovw $0xe9, %dx\nmovl $3, %ecx\nrep outsb\n",
    "cli\nincq %rax\nsti\nincq %rbx\n",
    "testb $1, %bl\njz even{n}\nincq %rbx\neven{n}: call sub{n}\njmp on{n}\nsub{n}: incl %edx\nret\non{n}:\n",
    "pause\nincq %rax\n",
    "movb $0x11, {rom}\nmovb {rom}, %r12b\n",
    "movl $0x40, %ecx\nsmall{n}: decl %ecx\njnz small{n}\n",
    "sti\nhlt\n",
)


class Recording(GatedMachine):
    """Keeps its events."""

    by_block = True

    def __init__(self, memory_map: MemoryMap, *, strict: bool = True, plain_strings: bool = False) -> None:
        del strict, plain_strings
        super().__init__(memory_map, by_blocks=self.by_block)
        self.listeners.append(self.events.append)


class ByInstructions(Recording):
    """Counts one by one."""

    by_block = False


@contextmanager
def benches(text: str) -> Iterator[list[Bench]]:
    made = []
    for kind in (Recording, ByInstructions):
        with mock.patch.object(machine_bench, "Machine", kind):
            bench = Bench("4-level", text)
        for vector, handler in ((0, "over"), (6, "over"), (14, "paged"), (0x20, "irq"), (0x42, "back")):
            bench.gate(vector, bench.symbols[handler])
        unmask(bench)
        bench.machine.board.pic.set_line(0, False)
        made.append(bench)
    yield made
    for bench in made:
        bench.machine.close()


def program(pieces: list[int], turns: int) -> str:
    body = "".join(
        PIECES[piece].format(n=index, data=DATA, rom=ROM, skipped=SKIPPED) for index, piece in enumerate(pieces)
    )
    return (
        f"{PERIODIC}xorl %eax, %eax\nmovl $3, %ebx\nxorl %edx, %edx\nmovl ${turns}, %r15d\nsti\n"
        f"again: {body}decl %r15d\njz end\njmp again\nend: cli\nhlt\n{HANDLERS}.balign 8\nzero: .quad 0\n"
    )


@given(
    pieces=st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=9),
    turns=st.integers(1, 6),
    cuts=st.lists(st.integers(1, 90), max_size=12),
)
@settings(max_examples=120)
def test_both_counts_are_one_run(pieces: list[int], turns: int, cuts: list[int]) -> None:
    with benches(program(pieces, turns)) as (blocks, single):
        for ticks in (*cuts, 50_000):
            ends = [bench.machine.run(ticks) for bench in (blocks, single)]
            assert ends[0] == ends[1]
            assert blocks.machine.here() == single.machine.here()
        assert blocks.machine.engine.by_blocks
        assert not single.machine.engine.by_blocks
        assert guest_state(blocks.machine) == guest_state(single.machine)
        assert blocks.machine.events == single.machine.events


@given(pieces=st.lists(st.integers(0, len(PIECES) - 1), min_size=1, max_size=9), ticks=st.integers(0, 3000))
@settings(max_examples=30)
def test_it_may_be_watched_from_the_middle_on(pieces: list[int], ticks: int) -> None:
    """A watch makes the machine count one by one; what it does is the same, and so it is once the watch has gone."""
    with benches(program(pieces, 6)) as (blocks, single):
        seen: list[list[tuple[int, int, int, bool]]] = [[], []]
        for machine, touches in zip((blocks.machine, single.machine), seen, strict=True):
            machine.run(ticks)
            number = machine.watch(DATA, DATA + 0xFFF, lambda *touch, touches=touches: touches.append(touch))
            machine.run(ticks)
            assert not machine.engine.by_blocks
            machine.unwatch(number)
            machine.run(50_000)
        assert seen[0] == seen[1]
        assert blocks.machine.engine.by_blocks
        assert guest_state(blocks.machine) == guest_state(single.machine)
        assert blocks.machine.events == single.machine.events
