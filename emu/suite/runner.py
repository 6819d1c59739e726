"""Runs claims, each from the same beginning, and judges them."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emu.assembler import Image
from emu.machine import events as ev
from emu.suite.changes import Allowed, allowed, unexpected_bytes
from emu.suite.claim_file import Claim, ClaimFile
from emu.suite.coverage import Coverage
from emu.suite.modes import Mode
from emu.suite.verdict import Verdict
from emu.suite.world import StubPaths, World, make_world
from emu.units import PAGE_SHIFT

TICK_LIMIT = 4_000_000
"""Instructions and iterations after which a claim is taken to hang."""
_REGISTER = re.compile(r"%([a-z][a-z0-9]*)")
_OBJECT = re.compile(r"(?<![$%\w.])([a-z_][\w.]*)(?![\w(])")
_NAMED_EVENTS = {ev.Hazard: "hazard", ev.BusError: "hole"}


@dataclass(slots=True)
class Begun:
    """A claim at its first instruction: registers and memory as they are now."""

    claim: Claim
    registers: dict[str, int]
    pages: dict[int, bytes]
    may: Allowed
    events: int
    instructions: int


@dataclass(slots=True)
class Runner:
    """The claims of one file in one mode, with the stubs that they are about."""

    file: ClaimFile
    mode: Mode
    stubs: StubPaths
    world: World = field(init=False)
    report: bool = True
    """Let the guest say its result on the console even where the claim held."""
    coverage: Coverage | None = None
    _looking: int | None = None

    def __post_init__(self) -> None:
        self.world = make_world(self.file, self.mode, self.stubs)
        symbols = self.world.program.symbols
        self.world.machine.break_at(symbols["held"])
        self.world.machine.break_at(symbols["failed"])
        self.world.machine.break_at(symbols["ended"])
        if self.coverage is not None:
            for stub in self.world.stubs.values():
                self.coverage.include(stub)

    @property
    def program(self) -> Image:
        """The assembled claim file."""
        return self.world.program

    def close(self) -> None:
        """Give the machine's memory back."""
        self.world.close()

    # ---- the parts of a run, for those who drive one themselves --------------------------------------------------

    def begin(self, claim: Claim) -> Begun:
        """A fresh machine at the first instruction of ``claim``."""
        world, machine = self.world, self.world.machine
        world.rewind()
        machine.ram.write(self.program.symbols["current_claim"], claim.address.to_bytes(8, "little"))
        machine.break_at(claim.address)
        outcome = machine.run(TICK_LIMIT)
        machine.clear_break(claim.address)
        if outcome != ev.Breakpoint(claim.address):
            raise AssertionError(f"{claim.name} does not begin: {outcome}")
        registers = machine.cpu.registers()
        self._watch()
        return Begun(
            claim=claim,
            registers=registers,
            pages=self.memory(),
            may=allowed(claim.changes, self.program, tuple(registers), world.ranges()),
            events=len(machine.events),
            instructions=machine.count.instructions,
        )

    def memory(self) -> dict[int, bytes]:
        """All pages of RAM by physical address."""
        ram = self.world.machine.ram
        return {pfn << PAGE_SHIFT: ram.page(pfn) for pfn in ram.pfns()}

    def judge(self, begun: Begun, outcome: ev.Outcome) -> Verdict:
        """The verdict on a claim whose run ended with ``outcome``."""
        machine, symbols = self.world.machine, self.program.symbols
        self.unwatch()
        problems: list[str] = []
        place = ""
        if begun.claim.ends:
            problems += self._ending(begun.claim, outcome)
            problems += unexpected_bytes(begun.pages, self.memory(), begun.may)
        elif outcome == ev.Breakpoint(symbols["held"]):
            problems += begun.may.unexpected_registers(begun.registers, machine.cpu.registers())
            problems += unexpected_bytes(begun.pages, self.memory(), begun.may)
        elif outcome == ev.Breakpoint(symbols["failed"]):
            place, why = self._failed()
            problems.append(why)
        else:
            problems.append(f"it ended with {describe(outcome, self.place)}")
        problems += self._unexpected_events(begun)
        instructions = machine.count.instructions - begun.instructions
        console = self._console(outcome)
        posted = tuple(
            event.value
            for event in machine.events[begun.events :]
            if isinstance(event, ev.PortAccess) and event.port == 0x80 and event.write
        )
        return Verdict(begun.claim, self.mode, tuple(problems), place, console, posted, instructions)

    def run(self, claim: Claim) -> Verdict:
        """Run ``claim`` and judge it."""
        if claim.driven:
            from emu.suite.drivers import drive  # noqa: PLC0415 - drivers run claims by the parts above

            return drive(self, claim)
        begun = self.begin(claim)
        return self.judge(begun, self.go())

    def go(self) -> ev.Outcome:
        """Go on to whatever ends the claim."""
        return self.world.machine.run(TICK_LIMIT)

    def _watch(self) -> None:
        """Note what is executed of the stubs, until :meth:`unwatch`."""
        coverage = self.coverage
        if coverage is None or not self.world.stubs:
            return

        def look(linear: int) -> None:
            stub, address = self.stub_at(linear) or (None, linear)
            coverage.see(stub, address)

        self.unwatch()
        self._looking = self.world.machine.watch_instructions(look)

    def unwatch(self) -> None:
        """Look at instructions no more."""
        if self._looking is not None:
            self.world.machine.unwatch_instructions(self._looking)
            self._looking = None

    # ---- what is said --------------------------------------------------------------------------------------------

    def stub_at(self, linear: int) -> tuple[Image, int] | None:
        """The stub at ``linear``, at its physical or at A's address, and the physical address there."""
        control = self.world.stubs.get("relocate_new_kernel")
        if control is not None and self.mode.arch is not None:
            va = int(self.mode.arch.direct(control.org))
            if va <= linear < va + len(control.code):
                linear += control.org - va
        return next(((stub, linear) for stub in self.world.stubs.values() if stub.org <= linear < stub.end), None)

    def place(self, linear: int) -> str:
        """The symbol and line behind ``linear``: of the program, or of a stub."""
        image, linear = self.stub_at(linear) or (self.program, linear)
        if not image.org <= linear < image.end:
            return f"{linear:#x}"
        line = image.line_at(linear)
        where = f" ({_shown(line.file)}:{line.line})" if line is not None else ""
        return image.symbol_at(linear) + where

    def _ending(self, claim: Claim, outcome: ev.Outcome) -> list[str]:
        kind, _, symbol = claim.ends.partition(" at ")
        kinds: dict[str, type[ev.Outcome]] = {"triple fault": ev.TripleFault, "halt": ev.Halted}
        if not isinstance(outcome, kinds[kind]):
            if outcome == ev.Breakpoint(self.program.symbols["failed"]):
                place, why = self._failed()
                return [f"{place}: {why}"]
            return [f"it ended with {describe(outcome, self.place)} instead of a {claim.ends}"]
        if symbol:
            at = outcome.pc - 1 if isinstance(outcome, ev.Halted) else getattr(outcome, "pc", 0)
            name = self.place(at).split("+")[0].split(" (")[0]
            if name != symbol:
                return [f"the {kind} is at {self.place(at)}, not at {symbol}"]
        return []

    def _failed(self) -> tuple[str, str]:
        """Place and text of the assert that just called ``failed``."""
        cpu, program = self.world.machine.cpu, self.program
        size = self.mode.word
        stack = cpu.rsp if self.mode.bits == 64 else cpu.segment(2).base + (cpu.rsp & (0xFFFF if size == 2 else -1))
        raw = cpu.peek(stack, size)
        behind = int.from_bytes(raw, "little") if raw is not None else 0
        line = program.line_at(behind - 1)
        if line is None:
            return "", f"failed was called from {behind:#x}"
        file, _, last = (line.called_first or f"{line.file}:{line.line}").rpartition(":")
        number = int(last)
        text = program.sources.get(file, ())
        source = text[number - 1].split("#")[0].strip() if 0 < number <= len(text) else ""
        seen = [f"{name} = {value:#x}" for name, value in self._values(source)]
        return f"{_shown(file)}:{number}", f"`{' '.join(source.split())}` does not hold" + (
            f": {', '.join(seen)}" if seen else ""
        )

    def _values(self, source: str) -> list[tuple[str, int]]:
        """What the registers and objects that an assert names hold."""
        registers = self.world.machine.cpu.registers()
        found = []
        for name in _REGISTER.findall(source):
            whole = next((reg for reg in registers if reg in (name, f"r{name[1:]}", f"r{name}")), None)
            if whole is not None:
                found.append((f"%{name}", registers[whole] & ((1 << 64) - 1 if name[0] == "r" else 0xFFFFFFFF)))
        ram, symbols = self.world.machine.ram, self.program.symbols
        names = [name for name in _OBJECT.findall(source.partition(" ")[2]) if name in symbols]
        return found + [(name, ram.read_int(symbols[name], 4)) for name in names]

    def _unexpected_events(self, begun: Begun) -> list[str]:
        found = []
        for event in self.world.machine.events[begun.events :]:
            word = next((word for kind, word in _NAMED_EVENTS.items() if isinstance(event, kind)), "")
            if word and word not in begun.may.events:
                what = event.detail if isinstance(event, ev.Hazard) else getattr(event, "access", "")
                found.append(f"{word} at {self.place(event.pc)}: {what}")
        return found[:4]

    def _console(self, outcome: ev.Outcome) -> str:
        machine = self.world.machine
        symbols = self.program.symbols
        if outcome == ev.Breakpoint(symbols["failed"]) or (self.report and outcome == ev.Breakpoint(symbols["held"])):
            machine.run(TICK_LIMIT)
        return machine.board.serial.output.decode("latin-1").replace("\r\n", "\n")


def _shown(file: str) -> str:
    """A path as an editor started here opens it."""
    path = Path(file)
    return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else file


def describe(outcome: ev.Outcome, place: Callable[[int], str]) -> str:
    """An outcome in words."""
    match outcome:
        case ev.TripleFault(pc=pc, chain=chain):
            return f"a triple fault at {place(pc)}: " + ", then ".join(
                f"vector {one.vector} ({one.why})" for one in chain
            )
        case ev.Halted(pc=pc):
            return f"a halt at {place(pc - 1)}"
        case ev.StepLimit():
            return "no end in sight"
        case ev.Breakpoint(address=address):
            return f"control at {place(address)}"
        case _:
            return str(outcome)


def run_file(file: ClaimFile, stubs: StubPaths, modes: Sequence[Mode] = ()) -> list[Verdict]:
    """Every claim of ``file`` in its modes (or those of ``modes``)."""
    verdicts = []
    for mode in modes or file.modes:
        runner = Runner(file, mode, stubs)
        verdicts += [runner.run(claim) for claim in file.claims(mode)]
        runner.close()
    return verdicts
