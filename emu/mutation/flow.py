"""Which registers are dead where: the flow of control of a stub, and a liveness analysis over it.

Everything that is not known counts as read: what an indirect jump leads to, who gets control by a return that no call
in the stub made.  But for what the stubs' own headers say of the registers with which they leave: LEFT.
"""

from __future__ import annotations

from collections.abc import Iterable

from emu.assembler import Image
from emu.assembler.effects import DIRECTION, FLAGS, Effects, effects_of
from emu.mutation.lines import SourceLine

ALL = frozenset({"ax", "cx", "dx", "bx", "sp", "bp", "si", "di", *(f"r{n}" for n in range(8, 16)), FLAGS, DIRECTION})

LEFT = {
    ("relocate_new_kernel", 64, "call"): frozenset({"sp"}),  # to the peer, for which registers are leftovers
    ("relocate_new_kernel", 32, "call"): frozenset({"sp"}),
    ("jump_entry", 64, "call"): frozenset({"sp", "di", "si", "dx", "cx"}),
    ("jump_entry", 32, "call"): frozenset({"sp"}),
    ("purgatory", 64, "retf"): frozenset({"sp", "si", "bx", "di", "bp", FLAGS}),
    ("purgatory", 32, "retf"): frozenset({"sp", "si", "bx", "di", "bp", FLAGS}),
}
"""What means something to whoever gets control from a stub of this many bits by such an instruction."""
TO_A = {
    64: frozenset({"ax", "sp", "bx", "bp", "r12", "r13", "r14", "r15", FLAGS, DIRECTION}),
    32: frozenset({"ax", "sp", "bx", "si", "di", "bp", FLAGS, DIRECTION}),
}
"""What a return to A's call brings, by bits: the result, and what a caller may count on."""
_INTO_A = "virtual_mapped"


class Flow:
    """The instructions of the stub ``name`` by offset, and what is live before and after each."""

    def __init__(self, name: str, image: Image, lines: Iterable[SourceLine]) -> None:
        self._name, self._image = name, image
        self.effects: dict[int, Effects] = {}
        for line in lines:
            for offset, _size in line.places:
                found = effects_of(image.code[offset:], offset + image.org, image.bits_at(offset + image.org))
                if found is not None:
                    self.effects[offset] = found
        self._returns = self._return_points()
        self.live_after: dict[int, frozenset[str]] = dict.fromkeys(self.effects, frozenset())
        self.live_before: dict[int, frozenset[str]] = dict.fromkeys(self.effects, frozenset())
        self._solve()

    def live_at_target(self, branch: Effects) -> frozenset[str]:
        """What is live where a direct branch leads."""
        target = self._offset(branch.target)
        return ALL if target is None else self.live_before[target]

    def _offset(self, target: int | None) -> int | None:
        offset = None if target is None else target - self._image.org
        return offset if offset in self.effects else None

    def _inside(self, entry: int) -> set[int]:
        """The offsets of a function's instructions: what its entry reaches without following calls."""
        seen: set[int] = set()
        waiting = [entry]
        while waiting:
            at = waiting.pop()
            if at in seen or at not in self.effects:
                continue
            seen.add(at)
            here = self.effects[at]
            target = self._offset(here.target)
            if here.branch in ("jump", "jcc") and target is not None:
                waiting.append(target)
            if here.branch not in ("jump", "ret"):
                waiting.append(at + here.size)
        return seen

    def _return_points(self) -> dict[int, set[int]]:
        """Where each return of a called function may lead."""
        points: dict[int, set[int]] = {}
        for at, here in self.effects.items():
            target = self._offset(here.target)
            if here.branch == "call" and target is not None:
                for inside in self._inside(target):
                    if self.effects[inside].branch == "ret" and not self.effects[inside].mnemonic.startswith(
                        ("iret", "retf")
                    ):
                        points.setdefault(inside, set()).add(at + here.size)
        return points

    def _after(self, at: int, before: dict[int, frozenset[str]]) -> frozenset[str]:
        here = self.effects[at]
        following = before.get(at + here.size, ALL)
        target = self._offset(here.target)
        left = LEFT.get((self._name, self._image.bits, here.mnemonic[:4]), ALL)
        if here.branch == "ret":
            points = self._returns.get(at)
            if here.mnemonic.startswith("retf"):
                return self._far(at, before) if self._name != "purgatory" else left
            if points is None:
                return TO_A[self._image.bits] if self._is_in_a(at) else ALL
            return frozenset().union(*(before.get(point, ALL) for point in points))
        if here.branch in ("jump", "call"):
            return before.get(target, ALL) if target is not None else left if here.branch == "call" else ALL
        if here.branch == "jcc":
            return following | (before.get(target, ALL) if target is not None else ALL)
        return following

    def _is_in_a(self, at: int) -> bool:
        """Whether the code at ``at`` runs in A's own address space again."""
        return self._image.symbol_at(at + self._image.org).partition("+")[0] == _INTO_A

    def _far(self, at: int, before: dict[int, frozenset[str]]) -> frozenset[str]:
        """A far return in the stub itself goes to the instruction behind it."""
        return before.get(at + self.effects[at].size, ALL)

    def _solve(self) -> None:
        before = self.live_before
        changed = True
        while changed:
            changed = False
            for at in sorted(self.effects, reverse=True):
                here = self.effects[at]
                after = self._after(at, before)
                live = (after - here.writes) | here.reads
                if live != before[at] or after != self.live_after[at]:
                    before[at], self.live_after[at] = live, after
                    changed = True
