"""Jumps of a kernel that runs in the machine: seen when they happen, and checked against the reference model.

A jump is seen at the first change of CR0 or CR4 that code in a control page makes: no page has moved yet, and the page
holds all that there is to know (:mod:`emu.boot.control_page`).  From there on the run stops where control passes on:
at the peer's entry, at the caller's return address in the control page, and behind the caller's call.  A peer that
jumps itself, back into its caller say, is followed too: each jump that is open waits for its own next place.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

from emu.assembler import Image
from emu.boot import jump_checks as checks
from emu.boot.control_page import ControlPage, read_control_page
from emu.boot.jump import Jump, Stage
from emu.journey.findings import Finding
from emu.journey.memory import RamImage
from emu.journey.result import finding_json
from emu.journey.symbols import Symbols
from emu.kexec.entry_list import Mode, StepKind
from emu.kexec.image import KexecImage
from emu.machine import events as ev
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_MASK, PAGE_SHIFT, PAGE_SIZE
from emu.x86.paging import translate

_BEFORE_SEEN = 100
"""Ticks from the stub's first instruction to where it is seen, at most."""


class Jumps:
    """All jumps of one machine.  ``took`` is asked after each run of it whether the run ended because of a jump."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.symbols = Symbols()
        self.jumps: list[Jump] = []
        self.findings: list[Finding] = []
        self._seen: ControlPage | None = None
        self._gdtr = (0, 0)
        machine.listeners.append(self._heard)
        machine.owners.default = Owner.A
        self.sample()

    def close(self) -> None:
        """Leave the machine as it would be without this: no breakpoints, no policy, nobody listening."""
        self.machine.listeners.remove(self._heard)
        for jump in self.jumps:
            self.machine.clear_break(jump.waits_at)
        self._allow_all()

    def sample(self) -> None:
        """The kernel runs as it usually does: note its descriptor table, which it gives up before a jump."""
        gdtr = self.machine.cpu.gdtr
        if gdtr.limit:
            self._gdtr = gdtr.base, gdtr.limit

    # ---- seeing a jump -----------------------------------------------------------------------------------------

    def _heard(self, event: ev.Event) -> None:
        if isinstance(event, ev.OwnerViolation) and self.jumps:
            self.jumps[-1].violations.append(event)
        if isinstance(event, ev.ControlWrite) and event.register in ("cr0", "cr4") and self._seen is None:
            self._seen = self._control_page(event.pc)
            if self._seen is not None:
                self.machine.stop(ev.StopRequested())

    def _control_page(self, pc: int) -> ControlPage | None:
        physical = self.machine.cpu.walk(pc).physical
        if physical is None:
            return None
        page = physical & ~PAGE_MASK
        moving = (jump for jump in self.jumps if jump.stage in (Stage.THERE, Stage.BACK))
        if any(jump.control.page == page for jump in moving):
            return None
        control = read_control_page(self.machine.ram.read(page, PAGE_SIZE), page)
        if control is None or not control.is_on_its_way(pc & PAGE_MASK):
            return None  # the rest of it runs where the caller has it
        return control

    # ---- following it ------------------------------------------------------------------------------------------

    def took(self, outcome: ev.Outcome) -> bool:
        """Whether the run ended here because of a jump; it can then go on."""
        seen, self._seen = self._seen, None
        if seen is not None:
            self._begin(seen)
            return True
        if isinstance(outcome, ev.Breakpoint):
            self._reached(outcome.address)
            return True
        if isinstance(outcome, ev.TripleFault) and self.jumps:
            jump = max(self.jumps, key=lambda one: max(tick for _, tick in one.places.values()))
            page = jump.start & ~PAGE_MASK
            back_into = next((one for one in self.jumps if one is not jump and one.control.page == page), None)
            self._check(jump, "ended", checks.died(self._scene(jump), outcome, back_into))
        return False

    def _begin(self, control: ControlPage) -> None:
        machine = self.machine
        registers, before = machine.cpu.registers(), RamImage(machine.ram)
        mask = (1 << 8 * control.word) - 1
        jump = Jump(
            number=len(self.jumps) + 1,
            control=control,
            steps=tuple(before.walk(control.head, control.word)),
            start=registers["rdx"] & mask,
            preserve=bool(registers["rcx" if control.word == 8 else "rsi"] & 1),
            at_call=self._at_call(control),
            gdtr=self._gdtr,
            before=before,
            home=self._home(),
            seen=self._here(),
        )
        self.jumps.append(jump)
        for at in (control.linear, control.page):
            self.symbols.add(control.image(at))
        self._own(jump)
        self._check(jump, "entry list", checks.entry_list(self._scene(jump)))
        jump.expected = jump.moved(machine.ram, Mode.SWAP if jump.preserve else control.plain_mode)
        self._wait_for(jump, Stage.THERE, jump.start)
        self._forbid(jump.listed | jump.own, "A")

    def _reached(self, address: int) -> None:
        for jump in [one for one in self.jumps if one.waits_at == address and one.stage is not Stage.DONE]:
            match jump.stage:
                case Stage.THERE:
                    self._entered(jump)
                case Stage.PEER:
                    self._returned(jump)
                case _:
                    self._is_back(jump)

    def _entered(self, jump: Jump) -> None:
        machine, control = self.machine, jump.control
        jump.entered = self._here()
        jump.at_entry = machine.cpu.registers()
        sp = jump.at_entry["rsp"]
        end = control.swap_page + PAGE_SIZE
        stack = [(sp, end)] if control.swap_page < sp < end else []
        scene = self._scene(jump)
        self._check(jump, "memory there", checks.memory(scene, jump.expected, [control.saved, *stack]))
        self._check(jump, "owners there", checks.owners(scene))
        self._check(jump, "entry state", checks.entry_state(scene))
        self._check(jump, "known there", checks.known_at_entry(scene))
        jump.expected = None
        self._allow_all()
        if not jump.preserve:
            jump.before = None
            self._wait_for(jump, Stage.DONE, 0)
            return
        jump.return_to = machine.ram.read_int(sp, control.word)
        self._wait_for(jump, Stage.PEER, jump.return_to)
        if [one.stage for one in self.jumps].count(Stage.PEER) == 1:
            self._forbid(jump.destinations | {control.swap_page >> PAGE_SHIFT}, "B")

    def _returned(self, jump: Jump) -> None:
        machine = self.machine
        if machine.cpu.walk(jump.return_to).physical != jump.return_to:
            return  # the peer has something else at this linear address
        jump.returned = self._here()
        for later in self.jumps[jump.number :]:
            later.is_return = later.is_return or later.stage is Stage.PEER
        jump.left = machine.cpu.registers()
        scene = self._scene(jump)
        self._check(jump, "owners of the peer", checks.owners(scene))
        self._check(jump, "re-entry state", checks.reentry_state(scene))
        self._check(jump, "known back", checks.known_at_return(scene))
        jump.expected = jump.moved(machine.ram, Mode.SWAP)
        self._own(jump)
        self._forbid(jump.listed | jump.own, "A")
        self._wait_for(jump, Stage.BACK, jump.at_call["return"])

    def _is_back(self, jump: Jump) -> None:
        jump.back = self._here()
        scene, saved = self._scene(jump), jump.control.saved
        self._check(jump, "memory back", checks.memory(scene, jump.expected, [saved]))
        self._check(jump, "as before the jump", checks.as_before(scene, jump.before, [saved]))
        self._check(jump, "owners back", checks.owners(scene))
        self._check(jump, "registers", checks.after_call(scene))
        self._check(jump, "known after the call", checks.known_after_call(scene))
        jump.before = jump.expected = None
        self._allow_all()
        self._wait_for(jump, Stage.DONE, 0)
        self._gdtr = jump.gdtr

    def lines(self) -> list[str]:
        """What became of each jump, in a line."""
        return [jump.line() for jump in self.jumps]

    def marks(self) -> list[tuple[str, bool, ev.Position, int]]:
        """The time line of all jumps: name, whether it begins there, position, tick."""
        found = []
        for jump in self.jumps:
            ends = (("jump", "seen", "entered"), ("return", "returned", "back"))
            for name, first, last in ends:
                for place, begins in ((first, True), (last, False)):
                    if place in jump.places:
                        found.append((f"{name} {jump.number}", begins, *jump.places[place]))
        return sorted(found, key=lambda mark: mark[3])

    # ---- what it needs -----------------------------------------------------------------------------------------

    def _home(self) -> frozenset[int] | None:
        """The page frames of whoever runs now: a peer has those that it was given."""
        peers = [jump for jump in self.jumps if jump.stage is Stage.PEER]
        return frozenset(peers[-1].destinations) if peers and not peers[-1].is_return else None

    def _at_call(self, control: ControlPage) -> dict[str, int]:
        """The caller's registers, from the control page and from what the stub pushed on the caller's stack."""
        machine, words = self.machine, control.words
        state = replace(machine.cpu.paging(), cr0=words["cr0"], cr3=words["cr3"], cr4=words["cr4"], pdptes=None)
        found = {name: words[name] for name in ("cr0", "cr3", "cr4")} | {"efer": machine.cpu.registers()["efer"]}
        for index, name in enumerate(control.pushed):
            linear = words["rsp"] + index * control.word
            at = translate(machine.ram.read_int, state, linear)
            found[name] = machine.ram.read_int(at, control.word) if at is not None else 0
        found["rsp"] = words["rsp"] + (len(control.pushed) - 1) * control.word
        return found

    def _here(self) -> tuple[ev.Position, int]:
        position, tick, _ = self.machine.here()
        return position, tick

    def images(self) -> list[tuple[int, KexecImage]]:
        """What each jump is about, from the tick on at which its stub began."""
        return [(max(jump.seen[1] - _BEFORE_SEEN, 0), jump.image()) for jump in self.jumps]

    def programs(self) -> list[Image]:
        """The code of each control page, where its caller runs it and where it lies."""
        places = {at: jump.control for jump in self.jumps for at in (jump.control.linear, jump.control.page)}
        return [control.image(at) for at, control in places.items()]

    def _own(self, jump: Jump) -> None:
        owners, control = self.machine.owners, jump.control
        lists = [int(step.source) >> PAGE_SHIFT for step in jump.steps if step.kind is StepKind.INDIRECTION]
        owners.assign(self.machine.ram.pfns(), Owner.A)
        owners.assign(jump.listed, Owner.SOURCE)
        owners.assign(jump.destinations, Owner.B)
        owners.assign(lists, Owner.LIST)
        owners.assign([control.swap_page >> PAGE_SHIFT], Owner.SWAP)
        owners.assign([control.page >> PAGE_SHIFT], Owner.CONTROL)
        owners.assign([control.words["tables"] >> PAGE_SHIFT], Owner.PAGE_TABLE)

    def _wait_for(self, jump: Jump, stage: Stage, linear: int) -> None:
        if not any(one.waits_at == jump.waits_at for one in self.jumps if one is not jump):
            self.machine.clear_break(jump.waits_at)
        jump.stage, jump.waits_at = stage, linear
        if stage is not Stage.DONE:
            self.machine.break_at(linear)

    def _forbid(self, allowed: set[int], writer: str) -> None:
        policy = self.machine.policy
        policy.enforced = True
        policy.forbid(set(self.machine.ram.pfns()) - allowed, writer)

    def _allow_all(self) -> None:
        self.machine.policy.clear()
        self.machine.policy.enforced = self.machine.strict

    def _scene(self, jump: Jump) -> checks.Scene:
        return checks.Scene(self.machine, self.symbols, jump)

    def _check(self, jump: Jump, name: str, found: Sequence[Finding]) -> None:
        """Note the outcome of a check; a known fault is told once in a run."""
        jump.checks[name] = len(found)
        told = {finding.catalogue for finding in self.findings if finding.catalogue}
        self.findings += [finding for finding in found if not finding.catalogue or finding.catalogue not in told]

    def to_json(self) -> dict[str, object]:
        """The part of ``boot --json`` that is about jumps."""
        return {
            "jumps": [jump.to_json() for jump in self.jumps],
            "findings": [finding_json(finding) for finding in self.findings],
        }
