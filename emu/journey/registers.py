"""Registers across a jump: what must be as it was, and what a kernel may find at its entry."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from emu.kexec.arch import Arch
from emu.x86.bits import Cr0, Cr4, Eflags, decode
from emu.x86.exceptions import Vector
from emu.x86.paging import PagingMode, mode_of

CALLEE_SAVED_64 = ("rbx", "rbp", "r12", "r13", "r14", "r15")
CALLEE_SAVED_32 = ("rbx", "rbp", "rsi", "rdi")
CONTROL = ("cr0", "cr3", "cr4", "efer")
_GENERAL = ("rax", "rbx", "rcx", "rdx", "rsi", "rdi", "rbp", "rsp", *(f"r{number}" for number in range(8, 16)))
_VOLATILE_AFTER_RESTORE = frozenset({"rip", "rflags", "cr2", "dr6", *_GENERAL})
_STATUS_FLAGS = 0x8D5  # CF PF AF ZF SF OF: arithmetic leaves what it leaves


@dataclass(frozen=True, slots=True)
class Mismatch:
    """One register that is not what it must be."""

    register: str
    expected: int
    actual: int

    def describe(self) -> tuple[str, str]:
        """(expected, actual) for a person: flags by name."""
        table = {"cr0": Cr0, "cr4": Cr4, "rflags": Eflags}.get(self.register)
        if table is None:
            return f"{self.register} {self.expected:#x}", f"{self.register} {self.actual:#x}"
        changed = self.expected ^ self.actual
        return (
            f"{self.register} {self.expected:#x} ({decode(self.expected & changed, table) or 'none of the bits'})",
            (
                f"{self.register} {self.actual:#x} ({decode(self.actual & changed, table) or 'bits clear'}; "
                f"differs in {decode(changed, table)})"
            ),
        )


def after_call(arch: Arch, at_entry: Mapping[str, int], now: Mapping[str, int], *, gdt: bool) -> list[Mismatch]:
    """At the instruction after A's call: callee-saved, stack, flags, control registers, GDTR if the stub restores it.

    ``at_entry`` are the registers at the stub's first instruction, where the return address lies on the stack.
    """
    word = arch.word
    saved = CALLEE_SAVED_32 if word == 4 else CALLEE_SAVED_64
    wanted = {name: at_entry[name] for name in (*saved, *CONTROL)}
    wanted["rsp"] = at_entry["rsp"] + word
    wanted["rflags"] = at_entry["rflags"]
    if gdt:
        wanted |= {name: at_entry[name] for name in ("gdtr.base", "gdtr.limit")}
    mask = (1 << 32) - 1 if word == 4 else (1 << 64) - 1
    return [
        Mismatch(name, value & mask, now[name] & mask)
        for name, value in wanted.items()
        if value & mask & _relevant(name) != now[name] & mask & _relevant(name)
    ]


def _relevant(name: str) -> int:
    return ~_STATUS_FLAGS if name == "rflags" else -1


def after_restore(arch: Arch, before: Mapping[str, int], now: Mapping[str, int]) -> list[Mismatch]:
    """When A has put its processor in order: everything but the general registers is as at suspend_begin."""
    names = [name for name in before if name not in _VOLATILE_AFTER_RESTORE]
    if arch.bits == 32:
        names = [name for name in names if name not in _ONLY_64]
    return [Mismatch(name, before[name], now[name]) for name in names if before[name] != now[name]]


_ONLY_64 = frozenset(
    {"star", "lstar", "cstar", "sfmask", "kernel_gs_base", "fs_base", "gs_base", *(f"xmm{i}" for i in range(8, 16))}
)


def entry_state(arch: Arch, state: Mapping[str, int]) -> list[str]:
    """What the stub's convention demands of the processor when the peer starts; sentences for what does not hold."""
    wrong = []
    mode = mode_of(state["cr0"], state["cr4"], state["efer"])
    if arch.bits == 32:
        if mode is not PagingMode.NONE or not state["cr0"] & Cr0.PE:
            wrong.append(f"not flat protected mode without paging: cr0 {state['cr0']:#x}")
    else:
        wanted = PagingMode.FIVE_LEVEL if arch.is_la57 else PagingMode.FOUR_LEVEL
        if mode is not wanted or not state["cs.flags"] >> 21 & 1:
            wrong.append(f"not 64-bit code under {wanted.value} paging: {mode.value}")
        if state["cr4"] & (Cr4.PGE | Cr4.PCIDE | Cr4.SMEP | Cr4.SMAP | Cr4.CET):
            wrong.append(f"cr4 {state['cr4']:#x} has more than PAE, LA57, MCE: {decode(state['cr4'], Cr4)}")
    if state["cr0"] & (Cr0.AM | Cr0.WP | Cr0.TS | Cr0.EM):
        wrong.append(f"cr0 {state['cr0']:#x} has one of AM WP TS EM: {decode(state['cr0'], Cr0)}")
    if state["rflags"] & (Eflags.IF | Eflags.DF | Eflags.TF | Eflags.NT | Eflags.AC):
        wrong.append(f"flags {decode(state['rflags'], Eflags)}: IF, DF, TF, NT and AC must be clear")
    return wrong


def reentry_state(arch: Arch, state: Mapping[str, int]) -> list[str]:
    """What the re-entry convention demands of a kernel that jumps to A's entry; sentences for what does not hold."""
    wrong = []
    mode = mode_of(state["cr0"], state["cr4"], state["efer"])
    flat = state["cs.flags"] >> 22 & 1 or state["cs.flags"] >> 21 & 1
    if arch.bits == 32:
        if mode is not PagingMode.NONE:
            wrong.append("paging is on; the re-entry mode is flat, PG=0")
        elif not flat or state["cs.base"]:
            wrong.append("CS is no flat 32-bit segment")
    elif not state["efer"] >> 10 & 1 or not state["cs.flags"] >> 21 & 1:
        wrong.append("CS is a compatibility-mode segment; the re-entry mode is 64-bit code")
    if state["rflags"] & Eflags.IF:
        wrong.append("IF is set; the re-entry mode has interrupts off")
    return wrong


_FOREIGN = (("DF", Eflags.DF), ("TF", Eflags.TF), ("NT", Eflags.NT), ("AC", Eflags.AC))


def left_behind(arch: Arch, suspended: Mapping[str, int], state: Mapping[str, int]) -> list[str]:
    """State that the peer left different from A's and that the way back has to put right, in words (evidence)."""
    notes = [f"{name}=1 in the flags that the peer left" for name, bit in _FOREIGN if state["rflags"] & bit]
    notes += [f"CR0.{name}=1 left by the peer" for name, bit in (("TS", Cr0.TS), ("EM", Cr0.EM)) if state["cr0"] & bit]
    for name, bit in (("PCIDE", Cr4.PCIDE), ("PGE", Cr4.PGE), ("SMEP", Cr4.SMEP), ("SMAP", Cr4.SMAP)):
        if state["cr4"] & bit:
            notes.append(f"CR4.{name}=1 left by the peer")
    for name, mask in (("SCE", 1), ("NXE", 1 << 11)):
        if suspended["efer"] & ~state["efer"] & mask:
            notes.append(f"EFER.{name}=0 left by the peer, 1 in A")
    if state["dr7"] & 0xFF:
        notes.append(f"DR7={state['dr7']:#x} left by the peer: breakpoints armed")
    del arch
    return notes


def expected_exception(vector: int) -> str:
    """The name of an exception for a sentence."""
    return f"#{Vector(vector).name}" if vector in Vector.__members__.values() else f"vector {vector}"
