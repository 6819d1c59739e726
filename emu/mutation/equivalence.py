"""Rules by which a mutant does the same as the stub, whatever the tests.

same bytes              it assembles to the same code
dead register           it differs in registers and flags only, all written again before anything reads them
independent neighbours  two instructions changed places that neither read nor store what the other writes
"""

from __future__ import annotations

from emu.assembler import Image
from emu.assembler.effects import FLAGS, Effects, Memory, effects_of
from emu.mutation.flow import Flow
from emu.mutation.mutants import Mutant

SAME_BYTES, DEAD, INDEPENDENT = "same bytes", "dead register", "independent neighbours"
RULES = (SAME_BYTES, DEAD, INDEPENDENT)


def equivalent(mutant: Mutant, image: Image, changed: Image, flow: Flow) -> str:
    """The rule by which ``changed`` does what ``image`` does; empty where none says so."""
    if image.code == changed.code:
        return SAME_BYTES
    first = flow.effects.get(mutant.offset)
    if first is None:
        return ""
    if mutant.kind == "swap":
        second = flow.effects.get(mutant.offset + first.size)
        if second is None:
            return ""
        apart = independent(first, second, flow.live_after[mutant.offset + first.size])
        return INDEPENDENT if apart or beside_branch(first, second, flow) else ""
    other = None
    if mutant.new:
        at = mutant.offset + changed.org
        other = effects_of(changed.code[mutant.offset :], at, changed.bits_at(at))
        if other is None:
            return ""
    return DEAD if differs_in_dead(first, other, flow.live_after[mutant.offset]) else ""


def differs_in_dead(first: Effects, other: Effects | None, live: frozenset[str]) -> bool:
    """Whether ``first``, and ``other`` in its place (None: nothing), write registers only of which none is ``live``."""
    for one in (first, other):
        if one is not None and (one.system or one.alone or one.branch or any(operand.writes for operand in one.memory)):
            return False
    if other is not None and _places(other) - _places(first):
        return False  # it may fault where the original does not
    written = first.writes | (other.writes if other is not None else frozenset())
    return "sp" not in written and not written & live


def _places(one: Effects) -> set[tuple[str, str, int, int]]:
    return {(operand.base, operand.index, operand.displacement, operand.size) for operand in one.memory}


def independent(first: Effects, second: Effects, live: frozenset[str]) -> bool:
    """Whether two neighbours may change places; ``live`` are the registers read after both."""
    if any(one.alone or one.branch for one in (first, second)):
        return False
    if (first.system and (second.system or second.memory)) or (second.system and first.memory):
        return False
    both = first.writes & second.writes
    if both - {FLAGS} or (FLAGS in both and FLAGS in live and not (first.zeroes and second.zeroes)):
        return False
    if first.writes & second.reads or second.writes & first.reads:
        return False
    return all(
        _apart(one, other, first.writes | second.writes)
        for one in first.memory
        for other in second.memory
        if one.writes or other.writes
    )


def beside_branch(first: Effects, second: Effects, flow: Flow) -> bool:
    """Whether one of two neighbours is a conditional branch, and the other may come on either side of it.

    It must leave the flags, touch registers only, and only such as are dead where the branch leads.
    """
    branch, other = (first, second) if first.branch == "jcc" else (second, first)
    if branch.branch != "jcc" or other.branch or other.system or other.alone or other.memory or FLAGS in other.writes:
        return False
    return branch.reads <= {FLAGS} and not other.writes & flow.live_at_target(branch)


def _apart(one: Memory, other: Memory, written: frozenset[str]) -> bool:
    """Whether two operands are known not to overlap: the same base, which is not written, and no index."""
    if one.base != other.base or one.index or other.index or one.base in written:
        return False
    ends = one.displacement + one.size <= other.displacement, other.displacement + other.size <= one.displacement
    return any(ends)
