"""What came of a claim."""

from __future__ import annotations

from dataclasses import dataclass, field

from emu.suite.claim_file import Claim
from emu.suite.modes import Mode


@dataclass(frozen=True, slots=True)
class Verdict:
    """``problems`` are sentences, empty where the claim held; ``place`` is file:line of the assert that did not."""

    claim: Claim
    mode: Mode
    problems: tuple[str, ...] = ()
    place: str = ""
    console: str = ""
    posted: tuple[int, ...] = ()
    instructions: int = 0
    notes: tuple[str, ...] = field(default=())

    @property
    def held(self) -> bool:
        """Whether the claim held."""
        return not self.problems

    @property
    def word(self) -> str:
        """PASS, FAIL, XFAIL, or XPASS for a claim that held although it was expected to fail."""
        if self.claim.xfail:
            return "XPASS" if self.held else "XFAIL"
        return "PASS" if self.held else "FAIL"

    def text(self) -> str:
        """For people: what did not hold, where."""
        head = f"{self.claim.sentence}  [{self.mode}]"
        return "\n".join([head, *(f"  {line}" for line in ((self.place,) if self.place else ()) + self.problems)])
