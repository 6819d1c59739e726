"""Which other machines there are, and what each of them cannot do."""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass, replace
from enum import StrEnum
from functools import lru_cache
from typing import Protocol

from emu.errors import KjumpError
from emu.kexec.arch import Arch
from emu.kexec.e820 import MemoryMap
from emu.kexec.page_tables import build
from emu.oracle.case import Case, unrestorable
from emu.oracle.image import HIGH_START, LOW_END, OracleImage, build_image
from emu.oracle.kvm import run_kvm, unusable
from emu.oracle.outcome import TIME_LIMIT, Ended, Run, registers
from emu.oracle.qemu import require_qemu, run_qemu
from emu.units import PAGE_SIZE, Phys
from emu.x86.bits import Cr0, Cr4, Efer, Eflags

_PROBE_LIMIT = 5.0
_PROBE_VECTOR = 0x20
_PAGING_NAMES = {
    Arch.I386: "32-bit paging",
    Arch.I386_PAE: "PAE paging",
    Arch.X86_64: "4-level paging",
    Arch.X86_64_LA57: "5-level paging (LA57)",
}


class Other(StrEnum):
    """A machine that is not ours."""

    QEMU = "QEMU"
    KVM = "KVM"


class RunImage(Protocol):
    """Runs an image, for ``limit`` seconds at most."""

    def __call__(self, image: OracleImage, *, limit: float = TIME_LIMIT) -> Run:
        """Raises KjumpError where the machine is missing or cannot start."""


@dataclass(frozen=True, slots=True)
class Witness:
    """How to run an image on another machine, and why an architecture's cases cannot run there (empty: they can)."""

    name: Other
    run: RunImage
    refuses: Callable[[Arch], str]

    def lacks(self, case: Case) -> str:
        """Why this machine cannot begin with the state of ``case``; empty where it can."""
        if self.name is Other.QEMU and case.registers["cr4"] & Cr4.PCIDE:
            return "QEMU's TCG has no PCID (CR4.PCIDE)"
        if self.name is Other.KVM and case.takes_irq:
            return unrestorable(case) or kvm_is_late(case.arch)
        return unrestorable(case)


def witness(name: Other) -> Witness:
    """The machine ``name``."""
    if name is Other.QEMU:
        return Witness(name, run_qemu, _qemu_refuses)
    return Witness(name, run_kvm, kvm_refuses)


def _qemu_refuses(_arch: Arch) -> str:
    try:
        require_qemu()
    except KjumpError as error:
        return str(error)
    return ""


@lru_cache(maxsize=8)
def kvm_refuses(arch: Arch) -> str:
    """Why KVM cannot run cases of ``arch``: asked of a case that does nothing but turn that kind of paging on."""
    reason = unusable()
    if reason:
        return reason
    image = build_image([probe_case(arch)], in_place=True)
    try:
        run = run_kvm(image, limit=_PROBE_LIMIT)
    except KjumpError as error:
        return str(error)
    what = _PAGING_NAMES[arch]
    if run.ended is not Ended.DONE:
        return f"this KVM cannot do {what}: the probe ended with a {run.ended.value} {run.why}"
    state = registers(run, image.cases[0])
    wanted = {name: probe_case(arch).registers[name] for name in ("rbx", "cr3", "cr4")}
    if state is None or any(state[name] != value for name, value in wanted.items()):
        return f"this KVM cannot do {what}: the probe's registers are wrong"
    return ""


@lru_cache(maxsize=8)
def kvm_is_late(arch: Arch) -> str:
    """Why KVM cannot be asked about interrupts: one that is pending is not taken as soon as IF is set."""
    image = build_image([irq_probe(arch)], in_place=True)
    try:
        run = run_kvm(image, limit=_PROBE_LIMIT)
    except KjumpError as error:
        return str(error)
    state = registers(run, image.cases[0])
    if run.ended is not Ended.DONE or state is None:
        return f"this KVM takes no pending interrupt: the probe ended with: {run.ended.value} {run.why}"
    late = state["rbx"] - irq_probe(arch).registers["rbx"]
    return f"this KVM takes a pending interrupt late: {late:,} instructions after IRET has set IF" if late else ""


def irq_probe(arch: Arch) -> Case:
    """Code that counts in RBX for ever, and an interrupt that is pending and ends it: RBX says how soon."""
    probe = probe_case(arch)
    start, memory = probe.memory[0]
    changed = bytearray(memory)
    code, idt = (start + number * PAGE_SIZE for number in (len(memory) // PAGE_SIZE - 2, len(memory) // PAGE_SIZE - 1))
    count = b"\x48\xff\xc3\xeb\xfb" if arch.word == 8 else b"\x43\xeb\xfd"  # inc; jmp back to it
    changed[code - start : code - start + len(count)] = count
    gate = struct.pack("<HHHHII", probe.end & 0xFFFF, 8, 0x8E00, probe.end >> 16, 0, 0)[: 2 * arch.word]
    at = idt - start + _PROBE_VECTOR * len(gate)
    changed[at : at + len(gate)] = gate
    state = dict(probe.registers) | {"rip": code, "rflags": 2 | Eflags.IF, "idtr.base": idt, "idtr.limit": 0xFFF}
    return replace(probe, name=f"{arch} IRQ probe", memory=[(start, changed)], registers=state, irq=_PROBE_VECTOR)


def probe_case(arch: Arch) -> Case:
    """Nothing but an end: the collector is the first thing that runs, on tables of its own, at 1 MiB."""
    page, entry = HIGH_START, HIGH_START + PAGE_SIZE
    memory = bytearray(64 * PAGE_SIZE)
    gdt = page + 2 * PAGE_SIZE
    at = gdt - page
    code = 0x00AF9B000000FFFF if arch.word == 8 else 0x00CF9B000000FFFF
    memory[at : at + 24] = b"".join(value.to_bytes(8, "little") for value in (0, code, 0x00CF93000000FFFF))
    tables = iter(range(page + 3 * PAGE_SIZE, page + len(memory), PAGE_SIZE))

    def write(address: Phys, data: bytes) -> None:
        memory[address - page : address - page + len(data)] = data

    root = build(arch, lambda: Phys(next(tables)), write, identity=[(0, page + len(memory))])
    cr4 = 0 if arch is Arch.I386 else int(Cr4.PAE) | (int(Cr4.LA57) if arch.is_la57 else 0)
    return Case(
        name=f"{arch} probe",
        arch=arch,
        memory=[(page, memory)],
        registers=blank_registers()
        | {
            "rip": page, "rsp": gdt, "rbx": 0x1234567, "cr0": Cr0.PG | Cr0.PE | Cr0.ET | Cr0.NE,
            "cr3": root, "cr4": cr4,
            "efer": Efer.LME | Efer.LMA if arch.word == 8 else 0, "cs": 8, "gdtr.base": gdt, "gdtr.limit": 23,
            **dict.fromkeys(("ss", "ds", "es", "fs", "gs"), 16),
        },
        end=page,
        end_phys=page,
        moved={},
        entry=entry,
        entry_phys=entry,
        pdpts=frozenset({root}) if arch.is_pae else frozenset(),
    )  # fmt: skip


def blank_registers() -> dict[str, int]:
    """Every register that a case names, zero or as FNINIT and reset leave it."""
    general = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", "rip", *(f"r{i}" for i in range(8, 16)))
    others = ("cr0", "cr2", "cr3", "cr4", "efer", "cs", "ss", "ds", "es", "fs", "gs", "ldtr", "tr")
    tables = ("gdtr.base", "gdtr.limit", "idtr.base", "idtr.limit", "fs_base", "gs_base", "kernel_gs_base")
    msrs = ("star", "lstar", "cstar", "sfmask", "sysenter_cs", "sysenter_esp", "sysenter_eip")
    fpu = (*(f"st{i}" for i in range(8)), *(f"xmm{i}" for i in range(16)), "fsw")
    state = dict.fromkeys((*general, *others, *tables, *msrs, *fpu), 0)
    return state | {"rflags": 2, "fcw": 0x37F, "ftw": 0xFFFF, "mxcsr": 0x1F80}


def map_refused(memory_map: MemoryMap) -> str:
    """Why no PC has this memory map; empty where one does: RAM from 0 to 640 KiB and from 1 MiB in one piece."""
    ranges = [(part.start, part.end) for part in memory_map.ram_ranges]
    if len(ranges) == 2 and ranges[0][0] == 0 and ranges[0][1] <= LOW_END and ranges[1][0] == HIGH_START:
        return ""
    shown = ", ".join(f"p:{start:#x}..p:{end:#x}" for start, end in ranges)
    return f"other machines have RAM below 640 KiB and in one piece from 1 MiB; this map has {shown}"
