"""A journey from power-on to its end: transitions, and what is checked at each.

The machine runs; the stages stop it where control passes from one kernel to another, compare, and go on.  This module
is what they share: running, checking, who may write what.  Nothing here changes what the guests see, except what
:mod:`emu.journey.loader` does on A's request and :mod:`emu.journey.restore` on C's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from emu.assembler import Image
from emu.errors import JourneyError
from emu.journey import checkpoint, checks, control, explain, known, linux_checks, movement, programs
from emu.journey.checkpoint import Checkpoint, Forbidden, Progress
from emu.journey.faults import inject
from emu.journey.findings import Finding, fold
from emu.journey.leaving import load, rejump, suspend
from emu.journey.loader import Loaded, Loader
from emu.journey.movement import Movement, Route
from emu.journey.outcome import Ended, Outcome
from emu.journey.restoring import boot, restore, resume
from emu.journey.result import RunResult, Transition
from emu.journey.returning import finish, go_back
from emu.journey.saving import ImagePlace, save
from emu.journey.scene import Scene, kind_of
from emu.journey.symbols import Symbols
from emu.kexec.layout import HostRequest
from emu.machine import events as ev
from emu.machine.machine import Machine
from emu.units import PAGE_SIZE

STAGE_LIMIT = 600_000_000
"""Ticks after which a stage that should have ended is taken to be an endless loop."""
MOST_EXCEPTIONS = 1000
"""Handlers of the peer's that may run and return while the stub does."""
STAGES: dict[str, Callable[[Journey], None]] = {
    "load": load,
    "suspend": suspend,
    "save": save,
    "return": go_back,
    "boot": boot,
    "restore": restore,
    "resume": resume,
    "rejump": rejump,
}


class Journey:
    """Runs one scene.

    ``observe`` is called with (name, journey) at named moments, for tools and tests that interfere: each host request
    in lower case; ``after load``, ``after suspend``, ``before return``, ``after return``; ``suspend begins`` and
    ``return begins`` before the stub's first instruction, ``suspend moved`` and ``return moved`` when its work has been
    checked.  ``probe`` looks on while pages are moved.
    """

    def __init__(
        self,
        scene: Scene,
        observe: Callable[[str, Journey], None] | None = None,
        probe: explain.Probe | None = None,
    ) -> None:
        self.scene = scene
        self.machine = Machine(scene.memory_map, strict=scene.strict, plain_strings=scene.plain_strings)
        self.kernel_a = programs.kernel(scene, "a")
        self.kernel_b = programs.kernel(scene, "b")
        self.kernel_c = programs.kernel(scene, "c") if "boot" in scene.journey.transitions else None
        self.symbols = Symbols()
        self.image = ImagePlace(scene.image)
        self.loaded: Loaded | None = None
        self.findings: list[Finding] = []
        self.result = RunResult(scene)
        self.observe = observe
        self.before_run: Callable[[], None] = lambda: None
        self._probe = probe
        self._now = Transition("load", "A", "-")
        self.loader = Loader(self.machine, scene, self.kernel_a)
        self.progress = Progress()

    # ---- the whole way -----------------------------------------------------------------------------------------

    def run(self, until: str | None = None) -> RunResult:
        """Run to the end, or until transition ``until`` has been checked; a further call goes on from there.

        Raises:
            JourneyError: the journey has no transition ``until``.
        """
        names = self.scene.journey.transitions
        if until is not None and until not in names:
            raise JourneyError(f"the journey has no transition {until}", hint=f"one of {', '.join(names)}")
        self._enforce()
        try:
            while self.progress.next < len(names) and not self.progress.ended:
                name = names[self.progress.next]
                self.progress.next += 1
                STAGES[kind_of(name)](self)
                if name == until:
                    break
            if until is None and kind_of(names[-1]) in ("return", "resume") and not self.progress.ended:
                finish(self)
        except Ended as ended:
            self._guest_failed(ended.outcome)
        self._close()
        return self.result

    def checkpoint(self) -> Checkpoint:
        """The journey as it stands between two calls of :meth:`run`, after the load; raises JourneyError before it."""
        if self.loaded is None:
            raise JourneyError("a journey has no checkpoint before its load")
        return checkpoint.take(self, self.progress)

    def back_to(self, point: Checkpoint) -> None:
        """Go back to ``point`` of this same journey; the next :meth:`run` goes on from there."""
        self.result = checkpoint.put_back(self, point)
        self.progress = replace(point.progress)
        self._now = self.result.transitions[-1]

    def begin(self, source: str, target: str) -> None:
        """The transition that is next begins: control goes from ``source`` to ``target``, or stays ("-")."""
        name = self.scene.journey.transitions[self.progress.next - 1]
        self._now = Transition(name, source, target)
        self.result.transitions.append(self._now)
        self.machine.emit(ev.TransitionMark(*self.machine.here(), name, begins=True))

    def end(self) -> None:
        """The transition under way has been checked."""
        self.machine.emit(ev.TransitionMark(*self.machine.here(), self._now.name, begins=False))
        self.tell(f"after {self._now.name}")
        inject(self, self._now.name)

    # ---- one movement of pages ---------------------------------------------------------------------------------

    def start_move(self, route: Route, writer: str) -> Movement:
        """Apply the model at the first instruction of the movement, and let ``writer`` store where it says."""
        self.collect_events()
        name = self._now.name
        move = movement.begin(self, name, route)
        self.forbid(movement.moving_pfns(self, move), writer)
        self.tell(f"{name} begins")
        return move

    def run_move(self, move: Movement, wanted: int) -> None:
        """Let the stub do its work; control must then be at linear ``wanted``, and RAM as the model has it."""
        machine = self.machine
        if self._probe is not None:
            self._probe.begin(machine, move.name)
        outcome = self._run_stub(move)
        if self._probe is not None:
            self._probe.end()
            if self._probe.last == move.name:
                raise Ended(outcome)
        machine.clear_break_in()
        self.allow_all()
        now = self._now
        now.instructions = machine.count.instructions - move.position.n
        now.rep_iterations = machine.count.iterations - move.iterations
        now.pages_moved = move.found_moved(machine.ram)
        now.moved_how = str(move.route.mode.value)
        now.start, now.end = move.position, machine.here()[0]
        self.collect_events()
        if not isinstance(outcome, ev.Breakpoint):
            raise Ended(outcome)
        self.check(control.arrival(self, wanted, outcome.address))
        now.pages_compared = sum(1 for _ in machine.ram.pfns())
        self.check(checks.memory(self, move.expected, move.steps, move.volatile))
        self.tell(f"{move.name} moved")
        self.result.volatile = max(self.result.volatile, move.volatile, key=movement.bytes_of)

    def _run_stub(self, move: Movement) -> ev.Outcome:
        """Run until control leaves the stub for good.

        An exception inside it goes to the handler of whose IDT is loaded; one that returns has not left, but is found.
        """
        machine = self.machine
        pages = move.route.linear
        check = Outcome("exceptions")
        if move.route.entry_call:
            machine.break_at(move.route.entry_call)
        for _ in range(MOST_EXCEPTIONS):
            machine.break_outside(pages)
            outcome = self.run_machine()
            if move.route.entry_call and outcome == ev.Breakpoint(move.route.entry_call):
                self._now.entry_instructions = machine.count.instructions - move.position.n
                machine.clear_break(move.route.entry_call)
                outcome = self.run_machine()
            fault = control.just_delivered(machine)
            if fault is None or not isinstance(outcome, ev.Breakpoint):
                break
            check = check if check.findings else control.exception(self, fault)
            machine.break_in([(page, page + PAGE_SIZE - 1) for page in pages])
            outcome = self.run_machine()
            if not isinstance(outcome, ev.Breakpoint):
                break
        if move.route.entry_call:
            machine.clear_break(move.route.entry_call)
        self.check(check)
        return outcome

    def collect_events(self) -> None:
        """Owner violations and hazards since the last time."""
        fresh = self.machine.events[self.progress.collected :]
        self.progress.collected = len(self.machine.events)
        self.check(checks.owner_violations(self, fresh))
        self.check(checks.hazards(self, fresh))

    # ---- running -----------------------------------------------------------------------------------------------

    def run_machine(self) -> ev.Outcome:
        """Run until something ends it, a stage's time at most."""
        self.before_run()
        return self.machine.run(STAGE_LIMIT)

    def break_once(self, linear: int) -> None:
        """Run until control is at ``linear``; raises Ended for anything else."""
        self.machine.break_at(linear)
        outcome = self.run_machine()
        self.machine.clear_break(linear)
        if outcome != ev.Breakpoint(linear):
            raise Ended(outcome)

    def until_request(self, request: HostRequest) -> None:
        """Run until a kernel asks for ``request``; raises Ended for anything else."""
        outcome = self.run_machine()
        if outcome != ev.HostCall(request):
            raise Ended(outcome)
        self.tell(request.name.lower())

    def tell(self, moment: str) -> None:
        """Tell the observer, if there is one."""
        if self.observe is not None:
            self.observe(moment, self)

    def require_loaded(self) -> Loaded:
        """The load, which every later stage needs."""
        if self.loaded is None:
            raise AssertionError("nothing is loaded yet")
        return self.loaded

    def entry_call(self, second: Image) -> int:
        """The linear address at which A's entry points call relocate_new_kernel."""
        return programs.relocate_entry(second)

    @property
    def suspended(self) -> dict[str, int] | None:
        """A's registers at suspend_begin, once it has got there."""
        return self.progress.suspended

    @property
    def peer_notes(self) -> tuple[str, ...]:
        """What the peer left different from A's state, in words."""
        return self.progress.peer_notes

    # ---- who may write what ------------------------------------------------------------------------------------

    def forbid(self, allowed: Iterable[int], writer: str) -> None:
        """From here on ``writer`` may store to no page frames but ``allowed``."""
        self.progress.forbidden = Forbidden(movement.all_but(self, allowed), writer)
        self._enforce()

    def allow_all(self) -> None:
        """Everything may be written."""
        self.progress.forbidden = None
        self.machine.policy.clear()

    def _enforce(self) -> None:
        """Put the policy of this point of the journey in force; a run that is taken up again has lost it."""
        forbidden = self.progress.forbidden
        if forbidden is not None:
            self.machine.policy.forbid(forbidden.pfns, forbidden.writer)

    # ---- findings ----------------------------------------------------------------------------------------------

    @property
    def transition(self) -> Transition:
        """The transition under way."""
        return self._now

    def check(self, outcome: Outcome) -> None:
        """Take the outcome of a check of the transition under way."""
        self._now.checks[outcome.name] = len(outcome.findings)
        if self.scene.checks:
            self.findings.extend(outcome.findings)
            self._now.findings += len(outcome.findings)

    def find(self, kind: str, expected: str, actual: str, *, tick: int | None = None) -> None:
        """A finding at the machine's present place."""
        position, now, pc = self.machine.here()
        place = self.symbols.place(pc)
        self.findings.append(
            Finding(kind, self._now.name, now if tick is None else tick, position, str(place), expected, actual)
        )

    def _guest_failed(self, outcome: ev.Outcome) -> None:
        self.progress.ended = True
        if isinstance(outcome, ev.Exited):
            self.result.exit_status = outcome.status
        self.collect_events()
        self.findings.append(linux_checks.named(self, outcome, control.guest_failure(self, outcome)))
        self._now.findings += 1

    def _close(self) -> None:
        machine = self.machine
        machine.clear_break_in()
        machine.policy.clear()
        folded = fold(self.findings)
        if self._probe is None and self.observe is None:  # what an observer did cannot be done again
            folded = [explain.explain(self, finding) for finding in folded]
        folded = [known.named(self, finding) for finding in folded]
        self.result.finish(machine, folded, self.findings)


def image_of(journey: Journey, letter: str) -> Image:
    """The kernel ``letter`` of a journey."""
    kernels = {"A": journey.kernel_a, "B": journey.kernel_b, "C": journey.kernel_c}
    image = kernels[letter]
    if image is None:
        raise AssertionError(f"the journey has no kernel {letter}")
    return image
