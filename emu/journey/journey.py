"""A journey from power-on to its end: transitions, and what is checked at each.

The machine runs; this module stops it where control passes from one kernel to another, compares, and goes on.
Nothing here changes what the guests see, except what :mod:`emu.journey.loader` does on A's request.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

from emu.assembler import Image
from emu.errors import LoadError
from emu.journey import checks, programs, registers
from emu.journey.bringup import boot
from emu.journey.findings import Finding, fold
from emu.journey.loader import Loaded, Loader, refused, volatile_of_stub
from emu.journey.memory import RamImage
from emu.journey.result import RunResult, Transition
from emu.journey.scene import Scene
from emu.journey.symbols import Symbols
from emu.kexec.entry_list import Mode, StepKind, WalkStep
from emu.kexec.layout import HostRequest
from emu.machine import events as ev
from emu.machine.machine import Machine
from emu.machine.owners import Owner
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys

STUB_PUSHES = 8
"""Words that relocate_new_kernel may push on its caller's stack: the callee-saved registers and flags."""
STAGE_LIMIT = 600_000_000
"""Ticks after which a stage that should have ended is taken to be an endless loop."""


class _Ended(Exception):  # noqa: N818 - control flow inside this module
    """The guest did something that the journey has no next step for."""

    def __init__(self, outcome: ev.Outcome) -> None:
        self.outcome = outcome
        super().__init__(str(outcome))


@dataclass
class _Move:
    """One movement of pages under way: what the model expects of it."""

    name: str
    expected: RamImage
    steps: list[WalkStep]
    moved: int
    position: ev.Position
    tick: int
    iterations: int
    state: dict[str, int]
    volatile: list[tuple[int, int]] = field(default_factory=list)


class Journey:
    """Runs one scene.  ``observe`` is called with (name, journey) at named moments, for tools and tests that interfere."""

    def __init__(self, scene: Scene, observe: Callable[[str, Journey], None] | None = None) -> None:
        self.scene = scene
        self.machine = Machine(scene.memory_map, strict=scene.strict, plain_strings=scene.plain_strings)
        self.kernel_a = programs.kernel(scene, "a")
        self.kernel_b = programs.kernel(scene, "b")
        self.symbols = Symbols()
        self.loaded: Loaded | None = None
        self.findings: list[Finding] = []
        self.result = RunResult(scene)
        self.peer_notes: list[str] = []
        self.observe = observe or (lambda _name, _journey: None)
        self._now = Transition("load", "A", "-")
        self._loader = Loader(self.machine, scene, self.kernel_a)
        self._suspended: dict[str, int] = {}
        self._before_jump: RamImage | None = None
        self._violations = 0

    # ---- the whole way -----------------------------------------------------------------------------------------

    def run(self, until: str | None = None) -> RunResult:
        """Run to the end, or until transition ``until`` has been checked."""
        try:
            for name, stage in (("load", self._load), ("suspend", self._suspend), ("return", self._return)):
                stage()
                if name == until or name == self.scene.journey.transitions[-1]:
                    break
            if until is None:
                self._finish()
        except _Ended as ended:
            self._guest_failed(ended.outcome)
        self._close()
        return self.result

    def _begin(self, name: str, source: str, target: str) -> None:
        self._now = Transition(name, source, target)
        self.result.transitions.append(self._now)
        self.machine.emit(ev.TransitionMark(*self.machine.here(), name, begins=True))

    def _end(self) -> None:
        self.machine.emit(ev.TransitionMark(*self.machine.here(), self._now.name, begins=False))
        self.observe(f"after {self._now.name}", self)

    def _load(self) -> None:
        machine, scene = self.machine, self.scene
        line = scene.journey.command_lines.get("a", "").format(target=scene.target, seed=scene.seed)
        boot(machine, self.kernel_a, scene.arch, line)
        self.symbols.add(self.kernel_a, self.kernel_a.org)
        self.symbols.add(self.kernel_a, scene.arch.text_base + self.kernel_a.org)
        machine.policy.writer = "A"
        self._begin("load", "A", "-")
        self._until_request(HostRequest.PARSED)
        self._check(checks.command_line(self, self.kernel_a, line))
        self._until_request(HostRequest.LOAD)
        start = machine.count.ticks
        try:
            self.loaded = self._loader.load()
        except LoadError as error:
            refused(machine, self.kernel_a, error.errno)
            self._find("load refused", "the load succeeds", str(error), tick=start)
            raise _Ended(self._run()) from error
        self._know(self.loaded)
        self._now.pages_moved = 0
        self._now.listed = len(self.loaded.image.pairs)
        self._check(checks.list_invariant(self))
        self._check(checks.jump_page_fields(self, "load", None))
        self._end()

    def _know(self, loaded: Loaded) -> None:
        arch = self.scene.arch
        for image in (loaded.purgatory, self.kernel_b):
            self.symbols.add(image)
        for stub in (loaded.stub, loaded.second, loaded.jump_entry):
            if stub is not None:
                self.symbols.add(stub, size=PAGE_SIZE)
                self.symbols.add(stub, int(arch.direct(stub.org)), size=PAGE_SIZE)

    def _suspend(self) -> None:
        machine, loaded, arch = self.machine, self.require_loaded(), self.scene.arch
        self._break_once(arch.text_base + self.kernel_a.symbols["suspend_begin"])
        self._suspended = machine.cpu.registers()
        self._before_jump = RamImage(machine.ram)
        entry = programs.relocate_entry(loaded.stub) - loaded.stub.org
        self._break_once(int(loaded.image.control_va) + entry)
        self._begin("suspend", "A", "B")
        self._check(checks.quiet_devices(self))
        move = self._start_move("suspend", self._stub_pages())
        self._run_move(move, loaded.start)
        self._check(checks.peer_entry(self, move))
        machine.owners.assign(self._b_pfns(), Owner.B)
        machine.policy.forbid(self._all_but(self._b_pfns() | self._peer_pages()), "B")
        self._until_request(HostRequest.PARSED)
        self._check(checks.command_line(self, self.kernel_b, loaded.b_command_line))
        self._until_request(HostRequest.AWAKE)
        self._check(checks.jump_page_fields(self, "suspend", self.kernel_b.symbols.get("resume_entry")))
        self._until_request(HostRequest.SAVE)
        self._end()

    def _return(self) -> None:
        machine, loaded, arch = self.machine, self.require_loaded(), self.scene.arch
        self.observe("before return", self)
        pages = self._stub_pages()
        machine.break_in([(page, page + PAGE_SIZE - 1) for page in pages])
        outcome = self._run()
        machine.clear_break_in()
        if not isinstance(outcome, ev.Breakpoint):
            raise _Ended(outcome)
        self._begin("return", "B", "A")
        self._check(checks.return_entry(self))
        self._check(checks.quiet_devices(self))
        self.peer_notes = registers.left_behind(arch, self._suspended, machine.cpu.registers())
        move = self._start_move("return", pages)
        after = arch.text_base + self.kernel_a.symbols["after_jump"]
        self._run_move(move, after)
        self._check(checks.after_jump(self, self._suspend_state, gdt="restore_after_save" in loaded.stub.symbols))
        self._check(checks.as_before_the_jump(self, self._require_before(), move))
        machine.owners.assign(self._b_pfns(), Owner.A)
        machine.policy.clear()
        self._until_request(HostRequest.BACK)
        self._check(checks.restored(self, self._suspended))
        self._check(checks.jump_page_fields(self, "return", self.kernel_b.symbols.get("resume_entry")))
        self._end()

    def _finish(self) -> None:
        self._until_request(HostRequest.INTACT)
        outcome = self._run()
        if isinstance(outcome, ev.Exited):
            self.result.exit_status = outcome.status
        if outcome != ev.Exited(0):
            raise _Ended(outcome)

    # ---- one movement of pages ---------------------------------------------------------------------------------

    def _stub_pages(self) -> list[int]:
        """Physical (identity) pages in which stub code lies."""
        loaded = self.require_loaded()
        return [stub.org for stub in (loaded.stub, loaded.second, loaded.jump_entry) if stub is not None]

    def _start_move(self, name: str, pages: Sequence[int]) -> _Move:
        machine, loaded, arch = self.machine, self.require_loaded(), self.scene.arch
        image = loaded.image
        expected = RamImage(machine.ram)
        steps = expected.walk(image.head, image.word)
        moved = expected.move(steps, Mode.SWAP, image.swap_page)
        move = _Move(
            name, expected, steps, moved, machine.here()[0], machine.count.ticks, machine.count.iterations,
            machine.cpu.registers(),
        )  # fmt: skip
        if name == "suspend":
            self._suspend_state = move.state
        for stub in (loaded.stub, loaded.second):
            if stub is not None:
                move.volatile += volatile_of_stub(stub, arch)
        if loaded.jump_entry is not None:
            move.volatile.append((loaded.jump_entry.end, loaded.jump_entry.org + PAGE_SIZE))
        if image.swap_page is not None:
            move.volatile.append((int(image.swap_page), int(image.swap_page) + PAGE_SIZE))
        if name == "suspend":
            move.volatile += self._stack_below(move)
        allowed = {page >> PAGE_SHIFT for page in pages}
        allowed |= {page >> PAGE_SHIFT for pair in image.pairs for page in pair}
        allowed |= self._swap_pfns()
        self.machine.policy.forbid(self._all_but(allowed), "A" if name == "suspend" else "B")
        seen = [*pages, *(int(arch.direct(page)) for page in pages)]
        self._violations = len(machine.events)
        machine.break_outside(seen)
        self.observe(f"{name} begins", self)
        return move

    def _stack_below(self, move: _Move) -> list[tuple[int, int]]:
        """What the stub pushes on A's stack before it leaves it, where the list then moves that."""
        linear = move.state["rsp"] & (1 << 8 * self.scene.arch.word) - 1
        top = self.machine.cpu.translate(linear - 1) + 1
        moved = {step.destination: step.source for step in move.steps if step.kind is StepKind.SOURCE}
        page = (top - 1) & -PAGE_SIZE
        at = moved.get(Phys(page), Phys(page)) + top - page
        return [(at - STUB_PUSHES * self.scene.arch.word, at)]

    def _run_move(self, move: _Move, wanted: int) -> None:
        machine = self.machine
        outcome = self._run()
        machine.clear_break_in()
        machine.policy.clear()
        now = self._now
        now.instructions = machine.count.instructions - move.position.n
        now.rep_iterations = machine.count.iterations - move.iterations
        now.pages_moved = move.moved
        now.start, now.end = move.position, machine.here()[0]
        self._collect_events()
        if not isinstance(outcome, ev.Breakpoint):
            raise _Ended(outcome)
        self._check(checks.arrival(self, wanted, outcome.address))
        now.pages_compared = sum(1 for _ in machine.ram.pfns())
        self._check(checks.memory(self, move.expected, move.steps, move.volatile))
        self.observe(f"{move.name} moved", self)
        self.result.volatile = max(self.result.volatile, move.volatile, key=_bytes_of)

    def _collect_events(self) -> None:
        fresh = self.machine.events[self._violations :]
        self._violations = len(self.machine.events)
        self._check(checks.owner_violations(self, fresh))
        self._check(checks.hazards(self, fresh))

    # ---- running -----------------------------------------------------------------------------------------------

    def _run(self) -> ev.Outcome:
        return self.machine.run(STAGE_LIMIT)

    def _break_once(self, linear: int) -> None:
        self.machine.break_at(linear)
        outcome = self._run()
        self.machine.clear_break(linear)
        if outcome != ev.Breakpoint(linear):
            raise _Ended(outcome)

    def _until_request(self, request: HostRequest) -> None:
        outcome = self._run()
        if outcome != ev.HostCall(request):
            raise _Ended(outcome)
        self.observe(request.name.lower(), self)

    def require_loaded(self) -> Loaded:
        """The load, which every later stage needs."""
        if self.loaded is None:
            raise AssertionError("nothing is loaded yet")
        return self.loaded

    def _require_before(self) -> RamImage:
        if self._before_jump is None:
            raise AssertionError("A has not jumped yet")
        return self._before_jump

    # ---- who may write what ------------------------------------------------------------------------------------

    def _all_but(self, allowed: Iterable[int]) -> list[int]:
        kept = set(allowed)
        return [pfn for pfn in self.machine.ram.pfns() if pfn not in kept]

    def _b_pfns(self) -> set[int]:
        """Page frames of the target area and the low region."""
        low = self.scene.memory_map.low_region()
        return {*self.scene.target_range.pages(), *low.pages(), low.end >> PAGE_SHIFT}

    def _swap_pfns(self) -> set[int]:
        swap = self.require_loaded().image.swap_page
        return set() if swap is None else {int(swap) >> PAGE_SHIFT}

    def _peer_pages(self) -> set[int]:
        """What B may write besides its own memory: its first stack, and the jump page."""
        jump = self.require_loaded().image.jump
        return self._swap_pfns() | (set() if jump is None else {int(jump.jump_page) >> PAGE_SHIFT})

    # ---- findings ----------------------------------------------------------------------------------------------

    @property
    def transition(self) -> Transition:
        """The transition under way."""
        return self._now

    def _check(self, outcome: checks.Outcome) -> None:
        self._now.checks[outcome.name] = len(outcome.findings)
        if self.scene.checks:
            self.findings.extend(outcome.findings)
            self._now.findings += len(outcome.findings)

    def _find(self, kind: str, expected: str, actual: str, *, tick: int | None = None) -> None:
        position, now, pc = self.machine.here()
        place = self.symbols.place(pc)
        self.findings.append(
            Finding(kind, self._now.name, now if tick is None else tick, position, str(place), expected, actual)
        )

    def _guest_failed(self, outcome: ev.Outcome) -> None:
        if isinstance(outcome, ev.Exited):
            self.result.exit_status = outcome.status
        self._collect_events()
        self.findings.append(checks.guest_failure(self, outcome))
        self._now.findings += 1

    def _close(self) -> None:
        machine = self.machine
        machine.clear_break_in()
        machine.policy.clear()
        self.result.finish(machine, fold(self.findings), self.findings)


def _bytes_of(ranges: list[tuple[int, int]]) -> int:
    return sum(end - start for start, end in ranges)


def image_of(journey: Journey, letter: str) -> Image:
    """The kernel ``letter`` of a journey."""
    return journey.kernel_a if letter == "A" else journey.kernel_b
