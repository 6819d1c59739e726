"""A window with the hands on it: how an input gets in, and how what came of it is judged."""

from __future__ import annotations

import struct
from dataclasses import replace

from emu.fuzz.stage import Ended, Stage
from emu.fuzz.target import Script
from emu.fuzz.verdict import Result, Verdict
from emu.fuzz.window import REFUSALS, RETURN, Window
from emu.journey import registers
from emu.journey.journey import Journey
from emu.kexec.jump_page import JumpPage
from emu.machine.cpu import GPR_NAMES
from emu.units import PAGE_SIZE
from emu.x86.segments import Segment

LIMIT = 30_000
"""Ticks that a case may take; a whole short movement takes two thirds of it."""
WILD_INSTRUCTIONS = 750
"""Instructions of a case whose entry no contract covers: a whole short movement has 711."""
_BACK_BY_CALL = 1
_ARGUMENTS_64 = frozenset({"rdi", "rsi", "rdx", "rcx", "rsp"})
_NAMES_32 = GPR_NAMES[:8]
_NEEDED_AT_LAST_LOOK = frozenset({"rbx", "rbp", "rsp"})


def undefined_registers(window: Window, noise: bytes) -> dict[str, int]:
    """Values from ``noise`` for the registers that nobody may rely on where the window begins."""
    word = window.journey.scene.arch.word
    names = _NAMES_32 if word == 4 else GPR_NAMES
    kept = _ARGUMENTS_64 if word == 8 else frozenset({"rsp"})
    if window.stage.name == RETURN:
        kept = _NEEDED_AT_LAST_LOOK
    values = struct.unpack_from(f"<{len(names)}{'I' if word == 4 else 'Q'}", noise)
    return {name: value for name, value in zip(names, values, strict=True) if name not in kept}


def quick_registers(window: Window) -> dict[str, int]:
    """The registers that :mod:`emu.journey.registers` looks at where a movement ends."""
    engine, cpu = window.stage.machine.engine, window.stage.machine.cpu
    state = {name: engine.gpr(index) for index, name in enumerate(GPR_NAMES)}
    state |= {"rflags": engine.rflags, "efer": engine.efer, "cr0": engine.cr(0), "cr3": cpu.cr3, "cr4": engine.cr(4)}
    table = cpu.gdtr
    return state | {"gdtr.base": table.base, "gdtr.limit": table.limit, "cs.flags": engine.segment(Segment.CS).flags}


class Trip:
    """One window, one case after the other."""

    def __init__(self, window: Window) -> None:
        self.window = window
        self.stage: Stage = window.stage
        journey = window.journey
        self._journey: Journey = journey
        self._arch = journey.scene.arch
        self._b = journey.kernel_b
        jump = window.loaded.image.jump
        self.jump_page = int(jump.jump_page) if jump is not None else 0
        raw = self.stage.machine.ram.read(self.jump_page, PAGE_SIZE)
        self.page = JumpPage.unpack(raw) if journey.scene.handoff == "page" and self.jump_page else None
        self.after = self._arch.text_base + journey.kernel_a.symbols["after_jump"]
        self.refusals = tuple(self._b.symbols[name] for name in REFUSALS if name in self._b.symbols)

    # ---- the input -----------------------------------------------------------------------------------------------

    def set_noise(self, noise: bytes) -> None:
        """The registers that nobody may rely on; all zero stands for the journey's own."""
        if any(noise):
            self.stage.set_registers(undefined_registers(self.window, noise))

    def set_start(self, address: int) -> None:
        """The third argument of relocate_new_kernel."""
        if self._arch.word == 8:
            self.stage.set_registers({"rdx": address})
        else:
            self._set_argument(12, address)

    def set_head(self, head: int, flags: int) -> None:
        """The list and the flags of the call of relocate_new_kernel (i386 knows only whether to preserve)."""
        if self._arch.word == 8:
            self.stage.set_registers({"rdi": head, "rcx": flags})
        else:
            self._set_argument(4, head)
            self._set_argument(20, int(bool(flags & 1)))

    def _set_argument(self, offset: int, value: int) -> None:
        """An argument of i386, by its offset from the stack pointer at the call."""
        cpu = self.stage.machine.cpu
        at = cpu.walk((cpu.rsp + offset) & 0xFFFFFFFF).physical
        self.stage.write(at or 0, (value & 0xFFFFFFFF).to_bytes(4, "little"))

    def set_page(self, **fields: int) -> None:
        """Fields of the jump page, its checksum made right."""
        if self.page is not None:
            self.stage.write(self.jump_page, replace(self.page, **fields).pack())

    def enter(self, address: int) -> None:
        """Whoever runs jumps there; its own checks are done."""
        self.stage.set_registers({"rsp": 0})
        self.stage.set_state({"rip": address})

    def set_back(self, address: int) -> None:
        """Let B go back by a call of ``address``, the return address that it found on its stack."""
        self.stage.set_registers({"rbx": address, "rbp": _BACK_BY_CALL})

    # ---- the verdict ---------------------------------------------------------------------------------------------

    def script(self) -> Script:
        """What was put in since the last reset, and what the window did to the journey before it."""
        position, stage, window = self.stage.machine.here()[0], self.stage, self.window
        writes = (*window.listed, *stage.written)
        return Script(position, writes, tuple(stage.set.items()), window.moved, window.mode)

    def harmed(self) -> tuple[tuple[int, int], ...]:
        """Physical ranges (start, behind) that changed against the rules since the last reset, but for the input."""
        given = {page & -PAGE_SIZE for at, data in self.stage.written for page in (at, at + len(data) - 1)}
        return tuple(one for one in self.stage.pages.harmed() if one[0] & -PAGE_SIZE not in given)

    def result(
        self, verdict: Verdict, ended: Ended, row: str, why: str = "", detail: str = "", *, past: bool = True
    ) -> Result:
        """A result with its place."""
        place = self.stage.place(ended.at)
        return Result(verdict, row, why or ended.why, place, self.stage.name, ended.mode, detail, past)

    def _damage(self, *, moving: bool = False) -> list[int]:
        """Pages that broke their rule, but for those that are the input; ``moving``: the movement may be half done."""
        given = {page & -PAGE_SIZE for at, data in self.stage.written for page in (at, at + len(data) - 1)}
        return [address for address in self.stage.pages.damaged(moving=moving) if address not in given]

    def must_refuse(self, ended: Ended, row: str, reason: str) -> Result:
        """The input must not pass B's check, for ``reason``; what happens once it has does not make another finding."""
        if ended.arrived not in self.refusals:
            detail = f"then {ended.why} at {self.stage.place(ended.at)} in {ended.mode}"
            return Result(Verdict.ACCEPTED, row, f"not refused: {reason}", "", self.stage.name, "", detail, past=True)
        why = self._reason()
        if damage := self._damage():
            return self.result(Verdict.OWNER, ended, row, "store before a refusal", self._said(damage))
        return self.result(Verdict.REFUSED, ended, row, why, past=False)

    def _reason(self) -> str:
        at = self.stage.machine.engine.gpr(6)  # esi: the text that names what is bad
        raw = self.stage.machine.ram.read(at & 0xFFFFFFFF, 16)
        return raw.split(b"\0")[0].decode("ascii", "replace")

    def _said(self, damage: list[int]) -> str:
        owner = self.stage.machine.owners.at(damage[0])
        return f"{len(damage)} pages; {self.stage.pages.first_difference(damage[0])}, a page of {owner}"

    def at_own_risk(self, ended: Ended, row: str, *, past: bool) -> Result:
        """Code that no contract covers ran: it may do what it wants, and is counted by what it did."""
        damage = self._damage()
        if ended.arrived == self.after and not damage and not self._wrong_state():
            return self.result(Verdict.COMPLETED, ended, row, past=past)
        verdict = Verdict.WILD if damage or ended.arrived == self.after else Verdict.DETECTED
        return self.result(verdict, ended, row, past=past)

    def legal(self, ended: Ended, row: str, returns: int | None = None) -> Result:
        """The input is as the design has it: everything must hold, and A's call must return ``returns``."""
        wanted = self.after if self.stage.name == RETURN else self.window.loaded.start
        if ended.arrived != wanted:
            if damage := self._damage(moving=True):
                return self.result(Verdict.OWNER, ended, row, f"lost: {ended.why}", self._said(damage))
            return self.result(Verdict.LOST, ended, row)
        given = {at & -PAGE_SIZE for at, _ in self.stage.written}
        strays = [address for address in self.stage.pages.strays() if address not in given]
        if strays:
            return self.result(Verdict.OWNER, ended, row, "store outside the list", self._said(strays))
        if wrong := self._wrong_pages():
            return self.result(Verdict.SILENT, ended, row, self._which(wrong[0]), self._said(wrong))
        if state := self._wrong_state():
            return self.result(Verdict.SILENT, ended, row, state.split(",")[0], state)
        value = self.stage.machine.engine.gpr(0)
        if returns is not None and value != returns:
            return self.result(Verdict.SILENT, ended, row, "return value", f"rax is {value:#x}, not {returns}")
        return self.result(Verdict.COMPLETED, ended, row)

    def _which(self, address: int) -> str:
        return f"memory of {self.stage.machine.owners.at(address)}"

    def _wrong_pages(self) -> list[int]:
        """Pages against the model, but for those that are the input."""
        given = {address & -PAGE_SIZE for address, _ in self.stage.written}
        return [address for address in self.stage.pages.wrong() if address not in given]

    def _wrong_state(self) -> str:
        """What of the processor is not as it must be where the run arrived; empty if all is."""
        machine = self.stage.machine
        if self.stage.name == RETURN:
            state = quick_registers(self.window)
            gdt = self.window.loaded.restores_gdt
            wrong = registers.after_call(self._arch, self.window.called, state, gdt=gdt)
            return "; ".join(f"{one.register}, {one.actual:#x} not {one.expected:#x}" for one in wrong)
        sentences = registers.entry_state(self._arch, quick_registers(self.window))
        swap = int(self.window.loaded.image.swap_page or 0)
        word = self._arch.word
        sp = machine.cpu.rsp
        if sp != swap + PAGE_SIZE - 2 * word:
            sentences.append(f"stack pointer, {sp:#x} is not two words below the top of the swap page")
        return "; ".join(sentences)
