"""Claims that somebody interferes with from outside the machine, or watches from there.

A claim's ``driven`` is one of these, with its argument:

* ``nmi N``: at every instruction of the claim, once each, an NMI arrives.  Where stack and IDT in force can take it,
  the claim must hold all the same, or end in the stub's own handler; where not it is fatal, at N instructions at most.
* ``irq``: at every instruction IRQ 0 is raised.  Interrupts are off: the claim must hold, and the IRQ still wait.
* ``says TEXT``: the console has TEXT; ``{SYMBOL}`` is an address in 16 digits, ``{SYMBOL+1}`` the one behind it.
  ``says slowly TEXT``: with a transmitter that is busy every other time that it is asked.
* ``posts CODE``: this number, or constant, is written to the POST port.
* ``woken``: an NMI wakes the processor from its halt, and it halts there again.
* ``untouched WORDS``: none of these objects and pages is even read.
* ``executes MNEMONIC before WORDS``, ``never executes MNEMONIC``: this instruction is executed once, before any of
  these objects and pages changes, or never.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import replace

from emu.assembler import decode_one
from emu.errors import ImageError
from emu.machine import events as ev
from emu.suite.changes import allowed
from emu.suite.claim_file import Claim
from emu.suite.nmi import Fate, fate_of_nmi
from emu.suite.runner import Begun, Runner, describe
from emu.suite.verdict import Verdict
from emu.units import PAGE_SHIFT

Driver = Callable[[Runner, Claim, str], Verdict]
_SYMBOL = re.compile(r"\{([\w.]+)(?:\+(\d+))?\}")
_MOST_PROBLEMS = 4
_MOST_BOUNDARIES = 20_000


def drive(runner: Runner, claim: Claim) -> Verdict:
    """Run a claim as its ``driven`` says; raises ImageError for a word that means nothing."""
    for word, driver in sorted(DRIVERS.items(), reverse=True):
        if claim.driven == word or claim.driven.startswith(word + " "):
            return driver(runner, claim, claim.driven[len(word) :].strip())
    raise ImageError(
        f"nobody drives claims by {claim.driven!r}",
        where=f"{runner.file.path}:{claim.line}",
        hint=f"one of {', '.join(DRIVERS)}",
    )


def _and(verdict: Verdict, *problems: str, notes: tuple[str, ...] = ()) -> Verdict:
    return replace(verdict, problems=(*verdict.problems, *problems), notes=(*verdict.notes, *notes))


# ---- at every boundary -----------------------------------------------------------------------------------


def _boundaries(runner: Runner) -> Iterator[int]:
    """Stop the machine before each instruction from the stub's first on; the answer is its linear address.

    An instruction that is executed again counts again only where stack page, tables or IDT are others.
    """
    machine, ends = runner.world.machine, {runner.program.symbols[name] for name in ("held", "failed")}
    seen: set[tuple[int, ...]] = set()
    inside = False
    runner.unwatch()
    for _ in range(_MOST_BOUNDARIES):
        here, cpu = machine.cpu.pc, machine.cpu
        inside = inside or runner.stub_at(here) is not None
        key = (here, cpu.rsp >> PAGE_SHIFT, cpu.cr0, cpu.cr3, cpu.cr4, cpu.idtr.base)
        if inside and key not in seen:
            seen.add(key)
            state = machine.snapshot()
            yield here
            machine.restore(state)
        if here in ends or machine.step() is not None or machine.cpu.pc in ends:
            return


def _irq(runner: Runner, claim: Claim, _argument: str) -> Verdict:
    machine = runner.world.machine
    problems: list[str] = []
    begun, count = runner.begin(claim), 0
    for here in _boundaries(runner):
        count += 1
        machine.board.pic.set_line(0, True)
        verdict = runner.judge(begun, runner.go())
        waiting = machine.board.pic.state.master.lines & 1
        if not verdict.held or not waiting:
            why = verdict.problems[0] if verdict.problems else "the IRQ was taken"
            problems.append(f"raised at {runner.place(here)}: {why}")
    return _and(_undisturbed(runner, claim), *problems[:_MOST_PROBLEMS], notes=(f"{count} boundaries",))


def _undisturbed(runner: Runner, claim: Claim) -> Verdict:
    return runner.judge(runner.begin(claim), runner.go())


def _nmi(runner: Runner, claim: Claim, argument: str) -> Verdict:
    machine = runner.world.machine
    fates = dict.fromkeys(Fate, 0)
    problems: list[str] = []
    begun = runner.begin(claim)
    for here in _boundaries(runner):
        fate = fate_of_nmi(machine, runner.program)
        fates[fate] += 1
        machine.inject_nmi()
        why = _wrong_fate(runner, begun, fate, runner.go())
        if why:
            problems.append(f"arriving at {runner.place(here)}: {why}")
    most = int(argument or 0)
    if fates[Fate.FATAL] > most:
        problems.append(f"an NMI is fatal at {fates[Fate.FATAL]} instructions, more than {most}")
    said = ", ".join(f"{fate.value} at {count}" for fate, count in fates.items())
    return _and(_undisturbed(runner, claim), *problems[:_MOST_PROBLEMS], notes=(said,))


def _wrong_fate(runner: Runner, begun: Begun, fate: Fate, outcome: ev.Outcome) -> str:
    match fate:
        case Fate.SURVIVED:
            verdict = runner.judge(begun, outcome)
            return verdict.problems[0] if verdict.problems else ""
        case Fate.REPORTED:
            said = runner.world.machine.board.serial.output.decode("latin-1")
            if isinstance(outcome, ev.Halted) and "vector 0000000000000002" in said:
                return ""
        case Fate.FATAL:
            if isinstance(outcome, ev.TripleFault):
                return ""
    return f"it should be {fate.value}, but there is {describe(outcome, runner.place)}"


# ---- watched from outside --------------------------------------------------------------------------------


def _says(runner: Runner, claim: Claim, text: str) -> Verdict:
    return _said(runner, claim, text, slow=False)


def _says_slowly(runner: Runner, claim: Claim, text: str) -> Verdict:
    return _said(runner, claim, text, slow=True)


def _said(runner: Runner, claim: Claim, text: str, *, slow: bool) -> Verdict:
    serial = runner.world.machine.board.serial
    begun = runner.begin(claim)
    serial.slow = slow
    verdict = runner.judge(begun, runner.go())
    serial.slow = False

    def address(found: re.Match[str]) -> str:
        return f"{runner.program.symbols[found[1]] + int(found[2] or 0):016x}"

    wanted = _SYMBOL.sub(address, text)
    if wanted in verdict.console:
        return verdict
    return _and(verdict, f"the console does not say {wanted!r}, but {verdict.console!r}")


def _posts(runner: Runner, claim: Claim, code: str) -> Verdict:
    constants = runner.program.constants
    wanted = constants[code] if code in constants else int(code, 0)
    verdict = _undisturbed(runner, claim)
    if wanted in verdict.posted:
        return verdict
    return _and(verdict, f"{wanted:#x} is not posted, but {', '.join(map(hex, verdict.posted)) or 'nothing'}")


def _woken(runner: Runner, claim: Claim, _argument: str) -> Verdict:
    machine = runner.world.machine
    begun = runner.begin(claim)
    first = runner.go()
    machine.inject_nmi()
    second = runner.go()
    verdict = runner.judge(begun, second)
    if isinstance(first, ev.Halted) and first == second:
        return verdict
    return _and(verdict, f"{describe(first, runner.place)}; woken, {describe(second, runner.place)}")


def _untouched(runner: Runner, claim: Claim, words: str) -> Verdict:
    machine = runner.world.machine
    begun = runner.begin(claim)
    kept = allowed(words.split(), runner.program, (), runner.world.ranges()).ranges
    own = runner.program.symbols["runtime_begin"]
    touched: list[str] = []

    def note(physical: int, _size: int, _value: int, write: bool) -> None:
        verb = "stores to" if write else "reads"
        touched.append(f"{runner.place(machine.cpu.pc)} {verb} p:{physical:#x}")

    handles = [machine.watch(start, end - 1, note, reads=True) for start, end in kept if start != own]
    outcome = runner.go()
    for handle in handles:
        machine.unwatch(handle)
    return _and(runner.judge(begun, outcome), *touched[:_MOST_PROBLEMS])


def _executes(runner: Runner, claim: Claim, text: str) -> Verdict:
    return _executed(runner, claim, text, times=1)


def _never_executes(runner: Runner, claim: Claim, text: str) -> Verdict:
    return _executed(runner, claim, text, times=0)


def _executed(runner: Runner, claim: Claim, text: str, *, times: int) -> Verdict:
    machine = runner.world.machine
    mnemonic, _, words = text.partition(" before ")
    begun = runner.begin(claim)
    kept = allowed(words.split(), runner.program, (), runner.world.ranges())
    seen: list[bool] = []

    def look(linear: int) -> None:
        raw = machine.cpu.peek(linear, 16)
        decoded = decode_one(raw, linear, machine.cpu.bits) if raw else None
        if decoded is not None and decoded.mnemonic == mnemonic:
            seen.append(all(runner.memory()[page] == old for page, old in begun.pages.items() if kept.allows(page)))

    handle = machine.watch_instructions(look)
    outcome = runner.go()
    machine.unwatch_instructions(handle)
    verdict = runner.judge(begun, outcome)
    if len(seen) != times:
        verdict = _and(verdict, f"{mnemonic} is executed {len(seen)} times, not {times}")
    return verdict if all(seen) else _and(verdict, f"{mnemonic} is executed only after {words} changed")


DRIVERS: dict[str, Driver] = {
    "nmi": _nmi,
    "irq": _irq,
    "says": _says,
    "says slowly": _says_slowly,
    "woken": _woken,
    "untouched": _untouched,
    "posts": _posts,
    "executes": _executes,
    "never executes": _never_executes,
}
