"""A fast machine lets the engine run what a strict one stops at: both go the same way and say the same."""

from __future__ import annotations

from hypothesis import example, given, settings
from hypothesis import strategies as st

from emu.machine import events as ev
from tests.machine_bench import CODE, DATA, MODES, STACK, Bench, guest_state

CR0 = (0x80000011, 0x80010011, 0x80050033, 0x11, 0x10, 0x80000001, 0x80000013, 0xE0000011, 0xA0000011, 0x80000019)
CR4 = (0, 0x20, 0xA0, 0x620, 0x6A0, 0x30, 0x10, 0x1020, 0x20020, 0x200020, 0x2020, 0x100020, 0x8000020)
EFER = (0, 0x100, 0x500, 0x501, 0xD01, 0x901, 1, 0x10000)
NUMBERS = (0xC0000080, 0xC0000100, 0xC0000101, 0xC0000081, 0xC0000082, 0x277, 0x10, 0x1B, 0x174, 0xFE, 0x3)
PORTS = (0x20, 0x21, 0x3F8, 0x3F9, 0x3FD, 0x80, 0xE9, 0xF4, 0x71, 0x1234)
ADDRESSES = (DATA, DATA + 0x1FF8, 0xA0000, 0xF0000, 0x5000000, 0x1000)


@st.composite
def steps(draw: st.DrawFn) -> str:
    """A few instructions: a value in EAX, and a sensitive instruction that uses it or not."""
    number, value = draw(
        st.one_of(
            st.tuples(st.just(0), st.sampled_from(CR0)),
            st.tuples(st.just(4), st.sampled_from(CR4)),
            st.tuples(st.just(3), st.sampled_from((0x20000, 0x20008, 0x20FFF, 0x21000, 0x10000000))),
            st.tuples(st.sampled_from((0, 2, 3, 4, 8)), st.integers(0, 0xFFFFFFFF)),
        )
    )
    flips = draw(st.sampled_from((0, 0, 1 << 2, 1 << 7, 1 << 16, 1 << 21)))
    address = draw(st.sampled_from(ADDRESSES))
    msr = draw(st.sampled_from(NUMBERS))
    efer = draw(st.sampled_from(EFER))
    port, byte = draw(st.sampled_from(PORTS)), draw(st.sampled_from((0, 1, 3, 0x0A, 0x11, 0x34, 0x41, 0xFF)))
    bits = draw(st.sampled_from((0, 0, 0x400, 0x2000)))
    return draw(
        st.sampled_from(
            (
                f"movl ${value:#x}, %eax\nWRITE{number}",
                f"READ{number}\nXOR{flips:#x}\nWRITE{number}",
                f"READ{number}",
                f"movl ${msr:#x}, %ecx\nmovl ${efer:#x}, %eax\nxorl %edx, %edx\nwrmsr",
                f"movl ${msr:#x}, %ecx\nrdmsr\nxorl $1, %eax\nwrmsr",
                f"movl ${msr:#x}, %ecx\nrdmsr",
                f"LGDT{address:#x}",
                f"LIDT{address:#x}",
                "PUSHF\nPOPF",
                f"movl ${DATA:#x}, %esi\nmovl ${address:#x}, %edi\nmovl $40, %ecx\ncld\nrep movsl",
                "cpuid",
                f"movl ${port:#x}, %edx\nmovl ${byte:#x}, %eax\noutb %al, %dx\nnop",
                f"movl ${port:#x}, %edx\ninb %dx, %al\nnop",
                f"movl ${byte:#x}, %eax\noutb %al, $0x43\noutb %al, $0x40\noutb %al, $0x40\nnop\nnop",
                f"movl ${bits:#x}, %eax\nDR7\nnop",
            )
        )
    )


def text_of(parts: list[str], mode: str) -> str:
    """The program in the words of the mode's width."""
    wide = mode in ("4-level", "5-level")
    a, b = ("%rax", "%rbx") if wide else ("%eax", "%ebx")
    lines = []
    text = "\n".join(parts)
    for line in (text if wide else text.replace("WRITE8", "WRITE2").replace("READ8", "READ2")).splitlines():
        if line.startswith("WRITE"):
            lines.append(f"mov {a}, %cr{line[5:]}")
        elif line.startswith("READ"):
            lines.append(f"mov %cr{line[4:]}, {a}")
        elif line == "DR7":
            lines.append(f"mov {a}, %dr7")
        elif line.startswith("XOR"):
            lines.append(f"xorl ${line[3:]}, %eax")
        elif line[:4] in ("LGDT", "LIDT"):
            lines.append(f"movl ${line[4:]}, %ebx\n{line[:4].lower()} ({b})")
        elif line in ("PUSHF", "POPF"):
            lines.append(line.lower() + ("q" if wide else "l"))
        else:
            lines.append(line)
    return "\n".join([*lines, "hlt"])


def ran(text: str, mode: str, *, strict: bool, trap: bool) -> list[object]:
    bench = Bench(mode, text, strict=strict)
    bench.machine.ram.write(DATA, bytes((0x5F, 0, 0, 0x10, 0, 0)) + bytes(range(200)))
    bench.machine.cpu.rsp = STACK
    if trap:
        bench.machine.engine.rflags = 0x102
    outcome = bench.run(2000)
    said = [event for event in bench.machine.events if not isinstance(event, ev.Hazard | ev.OwnerViolation)]
    hazards = bench.machine.hazards
    serial = hazards.serial, hazards.serial_pc, hazards.serial_position
    seen = [outcome, said, guest_state(bench.machine), bench.machine.here(), serial]
    bench.machine.close()
    return seen


@settings(max_examples=250)
@given(
    st.lists(steps(), min_size=1, max_size=5),
    st.sampled_from([mode for mode in MODES if mode != "real"]),
    st.booleans(),
)
@example(parts=["READ0\nXOR0x10000\nWRITE0", "READ4\nXOR0x80\nWRITE4", f"LGDT{DATA:#x}"], mode="4-level", trap=True)
@example(parts=[f"LIDT{0x5000000:#x}"], mode="4-level", trap=False)
@example(parts=["movl $0x11, %eax\nWRITE0", "movl $0x80000011, %eax\nWRITE0"], mode="2-level", trap=False)
def test_both_speeds_say_the_same(parts: list[str], mode: str, trap: bool) -> None:
    text = text_of(parts, mode)
    assert ran(text, mode, strict=False, trap=trap) == ran(text, mode, strict=True, trap=trap)


def test_a_fast_machine_does_not_stop_at_what_is_accepted() -> None:
    """Else the comparison above would compare nothing."""
    bench = Bench("4-level", "mov %cr4, %rax\nor $0x80, %rax\nmov %rax, %cr4\nlgdt 0x30000\nhlt\n", strict=False)
    done: list[int] = []
    execute = bench.machine.instructions.execute
    bench.machine.instructions.execute = lambda insn: done.append(bench.machine.cpu.pc) or execute(insn)  # type: ignore[method-assign,func-returns-value]
    bench.run()
    assert [pc for pc in done if pc >= CODE] == [bench.machine.cpu.pc - 1]
    assert [event.register for event in bench.machine.events if isinstance(event, ev.ControlWrite)] == ["cr4", "gdtr"]
