"""Delivery of exceptions and interrupts in every mode, into a processor made of a byte array."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, field, replace

import pytest

from emu.x86.bits import Cr0, Cr4, Efer, Eflags
from emu.x86.delivery import (
    Delivered,
    DeliveryTarget,
    Event,
    EventKind,
    GuestFault,
    NotModelled,
    TripleFaulted,
    deliver,
)
from emu.x86.exceptions import Vector
from emu.x86.segments import (
    ACCESSED,
    CODE_16,
    CODE_32,
    CODE_64,
    CONFORMING_OR_EXPAND_DOWN,
    DATA_16,
    DATA_32,
    DPL_SHIFT,
    PRESENT,
    Descriptor,
    Gate,
    Segment,
    SegmentCache,
    SystemType,
    TableRegister,
)

IDT, GDT, TSS, STACK, INNER, IST1 = 0x1000, 0x3000, 0x4000, 0x8000, 0x9000, 0xA008
HANDLER, RIP = 0x5678, 0x1234
KCODE, KDATA, UCODE, UDATA, EMPTY, ABSENT, CONFORMING = 0x08, 0x10, 0x1B, 0x23, 0x28, 0x30, 0x38
RING3 = 3 << DPL_SHIFT
SIZE = 0x20000


@dataclass
class Processor:
    """The registers that delivery knows, and 128 KiB of linear memory; ``holes`` are pages that fault."""

    cr0: int
    cr4: int
    efer: int
    idtr: TableRegister
    gdtr: TableRegister
    segments: dict[int, SegmentCache]
    tr: SegmentCache
    ldtr: SegmentCache = field(default_factory=lambda: SegmentCache(0, 0, 0, 0))
    rip: int = RIP
    rsp: int = STACK
    rflags: int = Eflags.IF | 2
    cr2: int = 0
    memory: bytearray = field(default_factory=lambda: bytearray(SIZE))
    holes: set[int] = field(default_factory=set)
    read_only: set[int] = field(default_factory=set)

    @property
    def cpl(self) -> int:
        return self.segments[Segment.SS].dpl if self.cr0 & Cr0.PE else 0

    def segment(self, index: int) -> SegmentCache:
        return self.segments[index]

    def set_segment(self, index: int, cache: SegmentCache) -> None:
        self.segments[index] = cache

    def read_linear(self, linear: int, size: int) -> bytes:
        self._check(linear, size, self.holes, 0)
        return bytes(self.memory[linear : linear + size])

    def write_linear(self, linear: int, data: bytes) -> None:
        self._check(linear, len(data), self.holes, 2)
        self._check(linear, len(data), self.read_only, 3)
        self.memory[linear : linear + len(data)] = data

    def _check(self, linear: int, size: int, pages: set[int], code: int) -> None:
        for address in (linear, linear + size - 1):
            if address >= SIZE or address >> 12 in pages:
                raise GuestFault(Vector.PF, code, address, "not there")

    def put(self, linear: int, data: bytes) -> None:
        self.memory[linear : linear + len(data)] = data

    def gate(self, vector: int, gate: Gate) -> None:
        wide = self.efer & Efer.LMA
        self.put(self.idtr.base + vector * (16 if wide else 8), gate.encode_wide() if wide else gate.encode())

    def frame(self, letter: str, count: int) -> tuple[int, ...]:
        return struct.unpack_from(f"<{count}{letter}", self.memory, self.rsp)

    def registers(self) -> tuple[object, ...]:
        return (self.rip, self.rsp, self.rflags, dict(self.segments))


def gdt(code: int) -> bytes:
    """Flat segments of both rings, an empty slot, an absent and a conforming code segment."""
    flat = 0xFFFFFFFF
    entries = (
        Descriptor.of(limit=flat, flags=code),
        Descriptor.of(limit=flat, flags=DATA_32),
        Descriptor.of(limit=flat, flags=code | RING3),
        Descriptor.of(limit=flat, flags=DATA_32 | RING3),
        Descriptor(0, 0, 0),
        Descriptor.of(limit=flat, flags=code & ~PRESENT),
        Descriptor.of(limit=flat, flags=code | CONFORMING_OR_EXPAND_DOWN),
    )
    return bytes(8) + b"".join(entry.encode() for entry in entries)


def protected(code: int = CODE_32, *, ring: int = 0, efer: int = 0) -> Processor:
    """Ring 0 or 3 with flat segments, a GDT, an IDT of 64 slots and a TSS."""
    raw = gdt(code)
    user = RING3 if ring else 0
    segments: dict[int, SegmentCache] = {index: SegmentCache(0, 0, 0, 0) for index in Segment}
    segments[Segment.CS] = SegmentCache(UCODE if ring else KCODE, 0, 0xFFFFFFFF, code | user)
    segments[Segment.SS] = SegmentCache(UDATA if ring else KDATA, 0, 0xFFFFFFFF, DATA_32 | user)
    entry_size = 16 if efer else 8
    cpu = Processor(
        cr0=Cr0.PE | Cr0.PG,
        cr4=int(Cr4.PAE),
        efer=efer,
        idtr=TableRegister(IDT, 64 * entry_size - 1),
        gdtr=TableRegister(GDT, len(raw) - 1),
        segments=segments,
        tr=SegmentCache(0x40, TSS, 0x67, PRESENT | SystemType.TSS_BUSY << 8),
    )
    cpu.put(GDT, raw)
    return cpu


def legacy(*, ring: int = 0) -> Processor:
    """32-bit protected mode, gate 14 ready, ESP0 and SS0 in the TSS."""
    cpu = protected(ring=ring)
    cpu.put(TSS + 4, struct.pack("<IH", INNER, KDATA))
    cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER))
    return cpu


def long(*, ring: int = 0) -> Processor:
    """64-bit mode, gate 14 ready, RSP0 and IST1 in the TSS."""
    cpu = protected(CODE_64, ring=ring, efer=Efer.LME | Efer.LMA)
    cpu.put(TSS + 4, struct.pack("<Q", INNER))
    cpu.put(TSS + 0x24, struct.pack("<Q", IST1))
    cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER))
    return cpu


def real() -> Processor:
    """Real-address mode with the interrupt table at 0."""
    segments: dict[int, SegmentCache] = {index: SegmentCache.real(0) for index in Segment}
    segments[Segment.CS] = SegmentCache.real(0x100, flags=CODE_16)
    segments[Segment.SS] = SegmentCache.real(0x200)
    tr = SegmentCache(0, 0, 0xFFFF, 0)
    cpu = Processor(0, 0, 0, TableRegister(0, 0x3FF), TableRegister(0, 0), segments, tr, rsp=0x100)
    cpu.put(6 * 4, struct.pack("<HH", 0x20, 0x300))
    return cpu


PAGE_FAULT = Event.fault(Vector.PF, 2, 0xDEAD000)
NO_CODE = Event(14)
"""Vector 14 as a fault without error code, so that frames are easy to read."""


def arrived(result: object) -> Delivered:
    """The result of a delivery that must have worked."""
    assert isinstance(result, Delivered)
    return result


def first_failure(cpu: DeliveryTarget, event: Event = NO_CODE) -> tuple[int, int]:
    """Vector and error code of what the first attempt raises."""
    result = deliver(cpu, event)
    assert not isinstance(result, NotModelled)
    failed = result.chain if isinstance(result, TripleFaulted) else result.attempts
    assert failed
    return failed[0].raised, failed[0].raised_code


class TestReal:
    """Real-address mode."""

    def test_frame_and_registers(self) -> None:
        cpu = real()
        cpu.rflags = Eflags.IF | Eflags.TF | Eflags.AC | Eflags.DF | 2
        done = arrived(deliver(cpu, Event.fault(Vector.UD)))
        assert (done.vector, done.cs, done.rip, done.rsp) == (6, 0x300, 0x20, 0xFA)
        assert struct.unpack_from("<3H", cpu.memory, 0x2000 + 0xFA) == (
            RIP,
            0x100,
            Eflags.IF | Eflags.TF | Eflags.DF | 2,
        )
        assert cpu.rflags == Eflags.DF | 2
        assert cpu.segments[Segment.CS] == SegmentCache(0x300, 0x3000, 0xFFFF, CODE_16)

    def test_no_error_code_is_pushed(self) -> None:
        cpu = real()
        cpu.put(13 * 4, struct.pack("<HH", 0x40, 0x300))
        assert arrived(deliver(cpu, Event.fault(Vector.GP, 0x10))).rsp == 0xFA

    def test_a_software_interrupt_returns_after_itself(self) -> None:
        cpu = real()
        deliver(cpu, Event(6, kind=EventKind.SOFTWARE_INT, next_rip=RIP + 2))
        assert struct.unpack_from("<H", cpu.memory, 0x20FA) == (RIP + 2,)

    def test_the_limit_of_the_table(self) -> None:
        cpu = real()
        cpu.idtr = TableRegister(0, 6 * 4 + 3)
        assert arrived(deliver(cpu, Event.fault(Vector.UD))).attempts == ()
        cpu.idtr = TableRegister(0, 6 * 4 + 2)
        assert first_failure(cpu, Event.fault(Vector.UD))[0] == Vector.GP

    def test_the_stack_wraps_but_not_within_a_word(self) -> None:
        cpu = real()
        cpu.rsp = 0
        assert arrived(deliver(cpu, Event.fault(Vector.UD))).rsp == 0xFFFA
        cpu = real()
        cpu.rsp = 1
        assert first_failure(cpu, Event.fault(Vector.UD))[0] == Vector.SS

    def test_a_handler_beyond_the_code_limit(self) -> None:
        cpu = real()
        cpu.segments[Segment.CS] = SegmentCache.real(0x100, limit=0x1F, flags=CODE_16)
        assert first_failure(cpu, Event.fault(Vector.UD))[0] == Vector.GP


class TestLegacy:
    """32-bit protected mode."""

    def test_same_privilege(self) -> None:
        cpu = legacy()
        done = arrived(deliver(cpu, PAGE_FAULT))
        assert (done.vector, done.error_code, done.cs, done.rip) == (14, 2, KCODE, HANDLER)
        assert cpu.frame("I", 4) == (2, RIP, KCODE, Eflags.IF | Eflags.RF | 2)
        assert cpu.rsp == done.rsp == STACK - 16
        assert cpu.cr2 == 0xDEAD000
        assert cpu.segments[Segment.SS].selector == KDATA

    def test_inner_privilege_takes_the_stack_from_the_tss(self) -> None:
        cpu = legacy(ring=3)
        deliver(cpu, PAGE_FAULT)
        assert cpu.frame("I", 6) == (2, RIP, UCODE, Eflags.IF | Eflags.RF | 2, STACK, UDATA)
        assert cpu.rsp == INNER - 24
        assert cpu.cpl == 0
        assert cpu.segments[Segment.SS] == SegmentCache(KDATA, 0, 0xFFFFFFFF, DATA_32)
        assert cpu.segments[Segment.CS].selector == KCODE

    def test_a_16_bit_tss(self) -> None:
        cpu = legacy(ring=3)
        cpu.tr = SegmentCache(0x40, TSS, 5, PRESENT | SystemType.TSS16_BUSY << 8)
        cpu.put(TSS + 2, struct.pack("<HH", INNER, KDATA))
        assert arrived(deliver(cpu, NO_CODE)).rsp == INNER - 20
        cpu = legacy(ring=3)
        cpu.tr = SegmentCache(0x40, TSS, 4, PRESENT | SystemType.TSS16_BUSY << 8)
        assert first_failure(cpu) == (Vector.TS, 0x41)

    def test_a_16_bit_gate_pushes_words(self) -> None:
        cpu = legacy()
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE16, KCODE, HANDLER))
        deliver(cpu, PAGE_FAULT)
        assert cpu.frame("H", 4) == (2, RIP, KCODE, Eflags.IF | 2)
        assert cpu.rsp == STACK - 8

    def test_a_16_bit_stack_keeps_the_upper_half_of_esp(self) -> None:
        cpu = legacy()
        cpu.segments[Segment.SS] = SegmentCache(KDATA, 0, 0xFFFF, DATA_16)
        cpu.rsp = 0x12340000 | STACK
        deliver(cpu, NO_CODE)
        assert cpu.rsp == 0x12340000 | STACK - 12
        assert struct.unpack_from("<I", cpu.memory, STACK - 12) == (RIP,)

    def test_the_stack_has_a_base(self) -> None:
        cpu = legacy()
        cpu.segments[Segment.SS] = SegmentCache(KDATA, 0x100, 0xFFFFF, DATA_32)
        deliver(cpu, NO_CODE)
        assert struct.unpack_from("<I", cpu.memory, STACK + 0x100 - 12) == (RIP,)

    def test_conforming_handlers_keep_the_privilege(self) -> None:
        cpu = legacy(ring=3)
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, CONFORMING, HANDLER))
        done = arrived(deliver(cpu, NO_CODE))
        assert (done.cs, cpu.cpl, done.rsp) == (CONFORMING | 3, 3, STACK - 12)

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [(0, (Vector.TS, 0x1)), (0x80, (Vector.TS, 0x81)), (KDATA | 1, (Vector.TS, 0x11)), (KCODE, (Vector.TS, 0x9)),
         (0x20, (Vector.TS, 0x21))],
        ids=["null", "beyond the GDT", "RPL", "code", "DPL"],
    )  # fmt: skip
    def test_bad_inner_stacks(self, selector: int, expected: tuple[int, int]) -> None:
        cpu = legacy(ring=3)
        cpu.put(TSS + 8, struct.pack("<H", selector))
        assert first_failure(cpu) == expected

    def test_a_null_inner_stack_is_refused_whatever_slot_0_holds(self) -> None:
        cpu = legacy(ring=3)
        cpu.put(GDT, Descriptor.of(limit=0xFFFFFFFF, flags=DATA_32).encode())
        cpu.put(TSS + 8, struct.pack("<H", 0))
        assert first_failure(cpu) == (Vector.TS, 0x1)

    def test_an_inner_stack_that_is_not_present(self) -> None:
        cpu = legacy(ring=3)
        cpu.put(GDT + KDATA, Descriptor.of(limit=0xFFFFFFFF, flags=DATA_32 & ~PRESENT).encode())
        assert first_failure(cpu) == (Vector.SS, 0x11)

    def test_an_inner_stack_without_room(self) -> None:
        cpu = legacy(ring=3)
        cpu.put(GDT + KDATA, Descriptor.of(limit=INNER - 2, flags=DATA_16).encode())
        assert first_failure(cpu) == (Vector.SS, 0x11)

    def test_the_current_stack_without_room(self) -> None:
        cpu = legacy()
        cpu.segments[Segment.SS] = SegmentCache(KDATA, 0, STACK - 2, DATA_32)
        assert first_failure(cpu) == (Vector.SS, 0x1)
        cpu = legacy()
        cpu.segments[Segment.SS] = SegmentCache(KDATA, 0, STACK - 1, DATA_32)
        assert arrived(deliver(cpu, NO_CODE)).attempts == ()

    def test_the_tss_limit(self) -> None:
        cpu = legacy(ring=3)
        cpu.tr = replace(cpu.tr, limit=9)
        assert arrived(deliver(cpu, NO_CODE)).attempts == ()
        cpu = legacy(ring=3)
        cpu.tr = replace(cpu.tr, limit=8)
        assert first_failure(cpu) == (Vector.TS, 0x41)

    def test_a_handler_beyond_the_code_limit(self) -> None:
        cpu = legacy()
        cpu.put(GDT + KCODE, Descriptor.of(limit=HANDLER - 1, flags=CODE_16).encode())
        assert first_failure(cpu) == (Vector.GP, 0x1)
        cpu = legacy()
        cpu.put(GDT + KCODE, Descriptor.of(limit=HANDLER, flags=CODE_16).encode())
        assert arrived(deliver(cpu, NO_CODE)).attempts == ()

    def test_task_gates_are_refused_as_not_modelled(self) -> None:
        cpu = legacy()
        cpu.gate(14, Gate(SystemType.TASK_GATE, KCODE, 0))
        before = cpu.registers()
        result = deliver(cpu, NO_CODE)
        assert result == NotModelled(14, "the task gate at IDT gate 0xe is not modelled")
        assert cpu.registers() == before

    def test_virtual_8086_mode_is_refused_as_not_modelled(self) -> None:
        cpu = legacy()
        cpu.rflags |= Eflags.VM
        assert isinstance(deliver(cpu, NO_CODE), NotModelled)

    def test_a_handler_in_the_ldt(self) -> None:
        cpu = legacy()
        cpu.put(0x6008, Descriptor.of(limit=0xFFFFFFFF, flags=CODE_32).encode())
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, 0x0C, HANDLER))
        cpu.ldtr = SegmentCache(0x48, 0x6000, 0xF, PRESENT | SystemType.LDT << 8)
        assert arrived(deliver(cpu, NO_CODE)).cs == 0x0C
        cpu.ldtr = replace(cpu.ldtr, limit=0xE)
        assert first_failure(cpu) == (Vector.GP, 0x0D)


class TestLong:
    """IA-32e mode."""

    def test_same_privilege_pushes_ss_and_rsp_and_aligns(self) -> None:
        cpu = long()
        cpu.rsp = STACK - 3
        done = arrived(deliver(cpu, PAGE_FAULT))
        assert cpu.frame("Q", 6) == (2, RIP, KCODE, Eflags.IF | Eflags.RF | 2, STACK - 3, KDATA)
        assert done.rsp == cpu.rsp == STACK - 16 - 48
        assert cpu.segments[Segment.SS].selector == KDATA

    def test_without_an_error_code(self) -> None:
        cpu = long()
        deliver(cpu, NO_CODE)
        assert cpu.rsp == STACK - 40
        assert cpu.frame("Q", 1) == (RIP,)

    def test_inner_privilege_nulls_ss(self) -> None:
        cpu = long(ring=3)
        deliver(cpu, PAGE_FAULT)
        assert cpu.frame("Q", 6) == (2, RIP, UCODE, Eflags.IF | Eflags.RF | 2, STACK, UDATA)
        assert cpu.rsp == INNER - 48
        assert cpu.segments[Segment.SS] == SegmentCache(0, 0, 0, 0)
        assert cpu.cpl == 0

    def test_null_ss_carries_the_new_privilege(self) -> None:
        cpu = long(ring=3)
        cpu.put(GDT + KCODE, Descriptor.of(limit=0xFFFFFFFF, flags=CODE_64 | 1 << DPL_SHIFT).encode())
        cpu.put(TSS + 12, struct.pack("<Q", INNER - 0x100))
        deliver(cpu, NO_CODE)
        assert cpu.segments[Segment.SS] == SegmentCache(1, 0, 0, 1 << DPL_SHIFT)
        assert cpu.segments[Segment.CS].selector == KCODE | 1
        assert cpu.rsp == INNER - 0x100 - 40

    def test_the_interrupt_stack_table(self) -> None:
        cpu = long()
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER, ist=1))
        deliver(cpu, NO_CODE)
        assert cpu.rsp == (IST1 & ~0xF) - 40
        assert cpu.segments[Segment.SS].selector == KDATA

    def test_the_interrupt_stack_table_from_ring_3(self) -> None:
        cpu = long(ring=3)
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER, ist=1))
        deliver(cpu, NO_CODE)
        assert cpu.rsp == (IST1 & ~0xF) - 40
        assert cpu.segments[Segment.SS].null

    def test_the_tss_limit(self) -> None:
        cpu = long(ring=3)
        cpu.tr = replace(cpu.tr, limit=0xA)
        assert first_failure(cpu) == (Vector.TS, 0x41)
        cpu = long(ring=3)
        cpu.tr = replace(cpu.tr, limit=0xB)
        assert arrived(deliver(cpu, NO_CODE)).attempts == ()

    def test_a_stack_that_is_not_canonical(self) -> None:
        cpu = long()
        cpu.rsp = 1 << 47
        assert first_failure(cpu)[0] == Vector.PF
        cpu = long()
        cpu.rsp = (1 << 47) + 0x100
        assert first_failure(cpu) == (Vector.SS, 0x1)

    def test_a_handler_that_is_not_canonical(self) -> None:
        cpu = long()
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, 1 << 47))
        assert first_failure(cpu) == (Vector.GP, 0x1)
        cpu = long()
        cpu.cr4 |= Cr4.LA57
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, 1 << 47))
        assert arrived(deliver(cpu, NO_CODE)).rip == 1 << 47

    def test_handlers_are_64_bit_code(self) -> None:
        cpu = long()
        cpu.put(GDT + KCODE, Descriptor.of(limit=0xFFFFFFFF, flags=CODE_32).encode())
        assert first_failure(cpu) == (Vector.GP, 0x9)

    def test_out_of_compatibility_mode(self) -> None:
        cpu = long()
        cpu.segments[Segment.CS] = SegmentCache(0x18, 0, 0xFFFFFFFF, CODE_32)
        deliver(cpu, NO_CODE)
        assert cpu.frame("Q", 3) == (RIP, 0x18, Eflags.IF | Eflags.RF | 2)
        assert cpu.segments[Segment.CS].long

    @pytest.mark.parametrize("kind", [SystemType.INTERRUPT_GATE16, SystemType.TASK_GATE, SystemType.CALL_GATE])
    def test_other_gates_are_refused(self, kind: SystemType) -> None:
        cpu = long()
        cpu.gate(14, Gate(kind, KCODE, HANDLER))
        assert first_failure(cpu) == (Vector.GP, 14 * 8 + 3)


Maker = Callable[..., Processor]
both = pytest.mark.parametrize("make", [legacy, long], ids=["legacy", "long"])


@both
class TestGates:
    """Checks that protected mode and IA-32e mode share."""

    def test_the_idt_limit(self, make: Maker) -> None:
        cpu = make()
        size = 16 if cpu.efer else 8
        cpu.idtr = TableRegister(IDT, 15 * size - 1)
        assert arrived(deliver(cpu, NO_CODE)).attempts == ()
        cpu.idtr = TableRegister(IDT, 15 * size - 2)
        assert first_failure(cpu) == (Vector.GP, 14 * 8 + 3)

    def test_an_empty_gate_is_no_gate(self, make: Maker) -> None:
        assert first_failure(make(), Event(20)) == (Vector.GP, 20 * 8 + 3)

    def test_an_absent_gate(self, make: Maker) -> None:
        cpu = make()
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER, present=False))
        assert first_failure(cpu) == (Vector.NP, 14 * 8 + 3)

    def test_software_interrupts_need_the_gate_s_privilege(self, make: Maker) -> None:
        software = Event(14, kind=EventKind.SOFTWARE_INT, next_rip=RIP + 2)
        assert first_failure(make(ring=3), software) == (Vector.GP, 14 * 8 + 2)
        cpu = make(ring=3)
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER, dpl=3))
        assert arrived(deliver(cpu, software)).attempts == ()
        assert cpu.frame("Q" if cpu.efer else "I", 1) == (RIP + 2,)

    def test_the_privilege_check_comes_before_the_present_check(self, make: Maker) -> None:
        cpu = make(ring=3)
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER, present=False))
        assert first_failure(cpu, Event(14, kind=EventKind.INT3)) == (Vector.GP, 14 * 8 + 2)

    @pytest.mark.parametrize("kind", [EventKind.FAULT, EventKind.EXTERNAL, EventKind.NMI, EventKind.INT1])
    def test_other_events_do_not_ask_the_gate_s_privilege(self, make: Maker, kind: EventKind) -> None:
        assert arrived(deliver(make(ring=3), Event(14, kind=kind))).attempts == ()

    @pytest.mark.parametrize(
        ("selector", "expected"),
        [(3, (Vector.GP, 0x1)), (0x80, (Vector.GP, 0x81)), (KDATA, (Vector.GP, 0x11)), (EMPTY, (Vector.GP, 0x29)),
         (UCODE, (Vector.GP, 0x19)), (ABSENT, (Vector.NP, 0x31)), (0x0C, (Vector.GP, 0x0D))],
        ids=["null", "beyond the GDT", "data", "empty", "outer privilege", "absent", "no LDT"],
    )  # fmt: skip
    def test_bad_code_selectors(self, make: Maker, selector: int, expected: tuple[int, int]) -> None:
        cpu = make()
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, selector, HANDLER))
        assert first_failure(cpu) == expected

    def test_a_null_code_selector_is_refused_whatever_slot_0_holds(self, make: Maker) -> None:
        cpu = make()
        cpu.put(GDT, bytes(cpu.memory[GDT + KCODE : GDT + KCODE + 8]))
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, 0, HANDLER))
        assert first_failure(cpu) == (Vector.GP, 0x1)

    def test_flags_behind_each_kind_of_gate(self, make: Maker) -> None:
        everything = Eflags.IF | Eflags.TF | Eflags.NT | Eflags.RF | Eflags.DF | Eflags.AC | 2
        cpu = make()
        cpu.rflags = everything
        deliver(cpu, NO_CODE)
        assert cpu.rflags == Eflags.DF | Eflags.AC | 2
        cpu = make()
        cpu.rflags = everything
        cpu.gate(14, Gate(SystemType.TRAP_GATE, KCODE, HANDLER))
        deliver(cpu, NO_CODE)
        assert cpu.rflags == Eflags.IF | Eflags.DF | Eflags.AC | 2

    def test_the_accessed_bit_is_set_in_the_table(self, make: Maker) -> None:
        cpu = make()
        cpu.memory[GDT + KCODE + 5] &= 0xFE
        deliver(cpu, NO_CODE)
        assert cpu.memory[GDT + KCODE + 5] & 1
        assert cpu.segments[Segment.CS].flags & ACCESSED

    def test_a_read_only_gdt_matters_only_for_the_accessed_bit(self, make: Maker) -> None:
        cpu = make()
        cpu.read_only = {GDT >> 12}
        assert arrived(deliver(cpu, NO_CODE)).attempts == ()
        cpu = make()
        cpu.read_only = {GDT >> 12}
        cpu.memory[GDT + KCODE + 5] &= 0xFE
        assert first_failure(cpu) == (Vector.PF, 3)


@pytest.mark.parametrize(
    ("event", "flag"),
    [
        (Event.fault(Vector.UD), True),
        (Event.fault(Vector.DB), False),
        (Event(14, kind=EventKind.TRAP), False),
        (Event(14, kind=EventKind.EXTERNAL), False),
        (Event(14, kind=EventKind.EXTERNAL, mid_rep=True), True),
    ],
    ids=["fault", "instruction breakpoint", "trap", "interrupt", "interrupt between iterations"],
)
def test_resume_flag_in_the_frame(event: Event, flag: bool) -> None:
    cpu = long()
    cpu.gate(event.vector, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER))
    deliver(cpu, event)
    assert bool(cpu.frame("Q", 3)[2] & Eflags.RF) is flag


def test_software_interrupts_push_no_resume_flag() -> None:
    cpu = long()
    cpu.rflags |= Eflags.RF
    deliver(cpu, Event(14, kind=EventKind.SOFTWARE_INT, next_rip=RIP + 2))
    assert not cpu.frame("Q", 3)[2] & Eflags.RF


class TestPromotion:
    """Faults during delivery."""

    def test_a_contributory_fault_behind_a_page_fault_is_a_double_fault(self) -> None:
        cpu = long()
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, EMPTY, HANDLER))
        cpu.gate(8, Gate(SystemType.INTERRUPT_GATE, KCODE, 0x777, ist=1))
        done = arrived(deliver(cpu, PAGE_FAULT))
        assert (done.vector, done.error_code, done.rip) == (8, 0, 0x777)
        assert [(each.vector, each.raised) for each in done.attempts] == [(14, 13)]
        assert cpu.frame("Q", 2) == (0, RIP)
        assert cpu.cr2 == 0xDEAD000

    def test_a_page_fault_behind_a_benign_exception_is_delivered_itself(self) -> None:
        cpu = long()
        cpu.rsp = STACK
        cpu.holes = {(STACK - 8) >> 12}
        cpu.gate(6, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER))
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER, ist=1))
        done = arrived(deliver(cpu, Event.fault(Vector.UD)))
        assert (done.vector, done.error_code) == (14, 2)
        assert cpu.cr2 == STACK - 8

    def test_a_page_fault_behind_a_contributory_one_is_delivered_itself(self) -> None:
        cpu = long()
        cpu.holes = {(STACK - 8) >> 12}
        cpu.gate(13, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER))
        cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER, ist=1))
        assert arrived(deliver(cpu, Event.fault(Vector.GP, 0x10))).vector == 14

    def test_interrupts_are_benign_whatever_their_number(self) -> None:
        for kind in (EventKind.SOFTWARE_INT, EventKind.EXTERNAL):
            cpu = long()
            cpu.gate(14, Gate(SystemType.INTERRUPT_GATE, EMPTY, HANDLER))
            cpu.gate(13, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER))
            done = arrived(deliver(cpu, Event(14, kind=kind, next_rip=RIP + 2)))
            assert (done.vector, done.error_code) == (13, EMPTY | (kind is EventKind.EXTERNAL))
            assert cpu.frame("Q", 2)[1] == RIP

    def test_ext_stays_set_down_the_chain(self) -> None:
        cpu = long()
        cpu.gate(32, Gate(SystemType.INTERRUPT_GATE, EMPTY, HANDLER))
        cpu.gate(13, Gate(SystemType.INTERRUPT_GATE, ABSENT, HANDLER))
        cpu.gate(8, Gate(SystemType.INTERRUPT_GATE, KCODE, HANDLER))
        done = arrived(deliver(cpu, Event(32, kind=EventKind.SOFTWARE_INT, next_rip=RIP + 2)))
        assert [each.raised_code for each in done.attempts] == [EMPTY, ABSENT | 1]
        assert done.vector == 8

    def test_a_triple_fault_tells_the_whole_chain(self) -> None:
        cpu = long()
        cpu.idtr = TableRegister(0, 0)
        before = cpu.registers()
        result = deliver(cpu, PAGE_FAULT)
        assert isinstance(result, TripleFaulted)
        assert [str(each) for each in result.chain] == [
            "#PF(0x2) not delivered: #GP(0x73): IDT gate 0xe lies beyond the IDT limit 0x0",
            "#DF(0x0) not delivered: #GP(0x43): IDT gate 0x8 lies beyond the IDT limit 0x0",
        ]
        assert cpu.registers() == before
        assert cpu.cr2 == 0xDEAD000

    def test_an_unreadable_idt(self) -> None:
        cpu = long()
        cpu.holes = {IDT >> 12}
        result = deliver(cpu, Event(32, kind=EventKind.EXTERNAL))
        assert isinstance(result, TripleFaulted)
        assert [each.vector for each in result.chain] == [32, 14, 8]
        assert result.chain[0].why == (
            "#PF(0x0) at 0x1200, read by supervisor of a page that is not present: "
            "IDT gate 0x20 at 0x1200 cannot be read: not there"
        )
        assert cpu.cr2 == IDT + 14 * 16

    def test_a_triple_fault_in_every_mode(self) -> None:
        for cpu in (real(), legacy(), long()):
            cpu.idtr = TableRegister(0, 0)
            result = deliver(cpu, Event.fault(Vector.UD))
            assert isinstance(result, TripleFaulted)
            assert [each.vector for each in result.chain] == [6, 13, 8]

    def test_a_failed_attempt_leaves_what_it_pushed_and_no_register(self) -> None:
        cpu = long()
        cpu.rsp = 0x8010
        cpu.holes = {7}
        before = cpu.registers()
        result = deliver(cpu, PAGE_FAULT)
        assert isinstance(result, TripleFaulted)
        assert cpu.registers() == before
        assert struct.unpack_from("<2Q", cpu.memory, 0x8000) == (0x8010, KDATA)


def test_events_and_attempts_have_names() -> None:
    assert str(PAGE_FAULT) == "#PF(0x2) cr2=0xdead000"
    assert str(Event(0x20, kind=EventKind.EXTERNAL)) == "IRQ 0x20"
    assert str(Event(0x80, kind=EventKind.SOFTWARE_INT)) == "INT 0x80"
    assert str(Event(2, kind=EventKind.NMI)) == "NMI"
    assert Event.fault(Vector.UD, 5).error_code is None
    assert str(GuestFault(13, 0x10, reason="why")) == "#GP(0x10) why"
