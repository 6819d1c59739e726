"""How a run ended: for a triple fault the chain of faults, why each delivery failed, and what led there."""

from __future__ import annotations

from emu.debugger.address import Address
from emu.debugger.lines import WIDTH, shorten, wrap_all
from emu.debugger.places import instruction, place, short, with_symbols
from emu.debugger.registers import regs
from emu.debugger.session import Session
from emu.debugger.visiting import peers, visiting
from emu.machine import events as ev
from emu.machine.history import Instant
from emu.x86.exceptions import describe_page_fault, vector_name, vector_title

LAST = 16
"""Instructions before the end that are shown."""


def last_outcome(session: Session) -> ev.Outcome | None:
    """What ended the recording, from the record or by running its last instant again; None when nothing did."""
    known = session.recording.history.outcome
    if isinstance(known, ev.TripleFault | ev.Exited | ev.Halted | ev.NotModelled):
        return known
    end = session.timeline.end
    last: ev.Outcome | None = known
    with visiting(session, Instant(end.tick, max(end.deliveries - 1, 0))):
        outcome = session.machine.run(1, until_delivery=True)
        if isinstance(outcome, ev.TripleFault | ev.Exited | ev.Halted | ev.NotModelled):
            last = outcome
    return last


def post_mortem(session: Session, width: int = WIDTH) -> list[str]:
    """The end of the recording, whatever it was, and the last 16 instructions before it."""
    outcome = last_outcome(session)
    lines = wrap_all(_what_ended(session, outcome), width)
    end = session.timeline.end
    at = Instant(end.tick, max(end.deliveries - 1, 0)) if isinstance(outcome, ev.TripleFault) else end
    with visiting(session, at):
        lines.append(f"in {peers(session, session.transition())}, the last {LAST} instructions:")
        registers = regs(session, width) if isinstance(outcome, ev.TripleFault) else []
        lines += _last_instructions(session, width)
    return lines + (["registers at the end:", *registers] if registers else [])


def how_it_ended(session: Session) -> str:
    """The end of the recording in a few words."""
    outcome = last_outcome(session)
    match outcome:
        case ev.TripleFault():
            return "triple fault (post-mortem shows how)"
        case ev.Exited(status=status):
            return f"the guest ended with exit status {status}"
        case ev.Halted():
            return "halted for good"
        case ev.NotModelled(what=what):
            return f"not modelled: {what}"
        case ev.ResetAsked():
            return "the guest asked for a reset"
        case _:
            return "the journey was over"


def _what_ended(session: Session, outcome: ev.Outcome | None) -> list[str]:
    match outcome:
        case ev.TripleFault(pc=pc, chain=chain, mode=mode):
            lines = [f"triple fault at {place(session, pc)}, {mode}"]
            for number, failure in enumerate(chain, 1):
                lines += _failure(number, failure)
            return [*lines, f"{len(chain) + 1}. the processor shuts down"]
        case ev.Exited(status=status):
            return [f"no triple fault: the guest ended with exit status {status}"]
        case ev.Halted(pc=pc):
            return [f"no triple fault: halted at {place(session, pc)}, and nothing can wake the processor"]
        case ev.NotModelled(pc=pc, what=what):
            return [f"no triple fault: at {place(session, pc)} the guest did what this machine does not model: {what}"]
        case ev.ResetAsked():
            return ["no triple fault: the guest asked the board for a reset"]
        case None:
            return ["no triple fault: the journey was over"]
        case _:
            return [f"no triple fault: {outcome}"]


def _failure(number: int, failure: ev.Failure) -> list[str]:
    code = "" if failure.error_code is None else f"({failure.error_code:#x})"
    title = vector_title(failure.vector)
    if failure.vector == 14 and failure.error_code is not None:
        title = f"page fault, {describe_page_fault(failure.error_code)}"
    return [f"{number}. {vector_name(failure.vector)}{code} {title}", f"   not delivered: {failure.why}"]


def _last_instructions(session: Session, width: int) -> list[str]:
    """The instructions before this instant, by going back and coming forward again."""
    here = session.timeline.now
    session.timeline.goto_position(max(session.position.n - LAST, 0))
    lines = []
    for _ in range(2 * LAST):
        insn = instruction(session, Address(session.pc))
        text = with_symbols(session, insn) if insn is not None else "cannot be fetched"
        at = place(session, session.pc)
        mark = "=>" if session.timeline.now >= here else "  "
        line = f"{mark} N {session.position!s:>11}  {at.symbol}:  {text}"
        source = f"  # {short(at)}" if at.file else ""
        lines.append(line + source if len(line + source) <= width else shorten(line, width))
        if session.timeline.now >= here or session.timeline.step() is not None:
            break
    return lines
