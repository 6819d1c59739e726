"""A journey from power-on to its end: transitions, and what is checked at each.

The machine runs; the stages stop it where control passes from one kernel to another, compare, and go on.  This module
is what they share: running, checking, who may write what.  Nothing here changes what the guests see, except what
:mod:`emu.journey.loader` does on A's request and :mod:`emu.journey.restore` on C's.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import replace

from emu.assembler import Image
<<<<<<< HEAD
from emu.errors import JourneyError
from emu.journey import checkpoint, checks, control, explain, linux_checks, movement, programs
=======
from emu.errors import JourneyError, LoadError
from emu.journey import (
    checkpoint,
    checks,
    control,
    explain,
    hostile,
    known,
    linux_checks,
    movement,
    programs,
    registers,
    stub_checks,
)
from emu.journey.bringup import boot
>>>>>>> db39763 (The catalogue of known bugs: each made again and caught; findings name what they look like)
from emu.journey.checkpoint import Checkpoint, Forbidden, Progress
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
<<<<<<< HEAD
        self.tell(f"after {self._now.name}")
=======
        self._tell(f"after {self._now.name}")

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
        before = RamImage(machine.ram)
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
        self._check(stub_checks.only_its_own(self, before))
        self._check(stub_checks.stub_bytes(self))
        self._check(checks.jump_page_fields(self, "load", None))
        self._end()

    def _know(self, loaded: Loaded) -> None:
        arch = self.scene.arch
        for image in (loaded.purgatory, self.kernel_b):
            self.symbols.add(image)
        caller = loaded.linux.caller if loaded.linux is not None else None
        for stub in (loaded.stub, loaded.second, loaded.jump_entry, caller):
            if stub is not None:
                self.symbols.add(stub, size=PAGE_SIZE)
                self.symbols.add(stub, int(arch.direct(stub.org)), size=PAGE_SIZE)
        if loaded.linux is not None and loaded.linux.text:
            self.symbols.add(loaded.stub, loaded.linux.text, size=PAGE_SIZE)

    def _suspend(self) -> None:
        machine, loaded, arch = self.machine, self.require_loaded(), self.scene.arch
        self._break_once(arch.text_base + self.kernel_a.symbols["suspend_begin"])
        self._progress.suspended = machine.cpu.registers()
        self._progress.before_jump = RamImage(machine.ram)
        self._break_once(loaded.entry_va)
        self._begin("suspend", "A", "B")
        self._check(control.quiet_devices(self))
        move = self._start_move("suspend")
        self._progress.called = move.state
        if loaded.linux is not None:
            self._check(linux_checks.own_bytes(self, loaded.linux))
        self._run_move(move, loaded.start)
        self._check(control.peer_entry(self, move))
        self._check(stub_checks.machine_checks_kept(self, move))
        if not self.scene.preserve:
            self._check(linux_checks.plain_stack(self))
        machine.owners.assign(movement.b_pfns(self), Owner.B)
        self._forbid(movement.peer_pfns(self), "B")
        self._until_request(HostRequest.PARSED)
        self._check(checks.command_line(self, self.kernel_b, loaded.b_command_line))
        if not self.scene.preserve:
            self._leave_peer()
            return
        self._until_request(HostRequest.AWAKE)
        self._check(checks.jump_page_fields(self, "suspend", self.kernel_b.symbols.get("resume_entry")))
        self._until_request(HostRequest.SAVE)
        self._end()

    def _leave_peer(self) -> None:
        """A plain kexec: B finds that there is nobody to go back to."""
        finding = linux_checks.peer_is_left(self, self._run())
        self._collect_events()
        self._check(Outcome("nobody to go back to", () if finding is None else (finding,)))
        self._end()
        self._progress.ended = True

    def _return(self) -> None:
        machine, loaded, arch = self.machine, self.require_loaded(), self.scene.arch
        suspended, called, before = self._progress.suspended, self._progress.called, self._progress.before_jump
        if suspended is None or called is None or before is None:
            raise AssertionError("A has not jumped yet")
        self._tell("before return")
        machine.break_in([(page, page + PAGE_SIZE - 1) for page in movement.stub_pages(self)])
        outcome = hostile.run_peer(machine, self.scene.hostile, STAGE_LIMIT)
        machine.clear_break_in()
        if not isinstance(outcome, ev.Breakpoint):
            raise _Ended(outcome)
        self._begin("return", "B", "A")
        self._check(control.return_entry(self))
        if loaded.linux is not None:
            self._check(linux_checks.next_entry(self, loaded.linux))
        self._check(control.quiet_devices(self))
        self._progress.peer_notes = tuple(registers.left_behind(arch, suspended, machine.cpu.registers()))
        move = self._start_move("return")
        self._run_move(move, arch.text_base + self.kernel_a.symbols["after_jump"])
        self._check(checks.after_jump(self, called, gdt=loaded.restores_gdt))
        self._check(checks.as_before_the_jump(self, before, move))
        machine.owners.assign(movement.b_pfns(self), Owner.A)
        self._until_request(HostRequest.BACK)
        self._check(checks.restored(self, suspended))
        self._check(checks.jump_page_fields(self, "return", self.kernel_b.symbols.get("resume_entry")))
        self._end()

    def _finish(self) -> None:
        self._until_request(HostRequest.INTACT)
        outcome = self._run()
        if isinstance(outcome, ev.Exited):
            self.result.exit_status = outcome.status
        if outcome != ev.Exited(0):
            raise _Ended(outcome)
        self._progress.ended = True
>>>>>>> db39763 (The catalogue of known bugs: each made again and caught; findings name what they look like)

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
    def called(self) -> dict[str, int] | None:
        """A's registers at the stub's first instruction, once it has got there."""
        return self._progress.called

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
