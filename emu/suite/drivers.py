"""Claims that somebody interferes with from outside the machine."""

from __future__ import annotations

from collections.abc import Callable

from emu.errors import ImageError
from emu.suite.claim_file import Claim
from emu.suite.runner import Runner
from emu.suite.verdict import Verdict

DRIVERS: dict[str, Callable[[Runner, Claim], Verdict]] = {}


def drive(runner: Runner, claim: Claim) -> Verdict:
    """Run a claim as the word after ``driven`` says; raises ImageError for a word that means nothing."""
    driver = DRIVERS.get(claim.driven)
    if driver is None:
        raise ImageError(
            f"nobody drives claims by {claim.driven}",
            where=f"{runner.file.path}:{claim.line}",
            hint=f"one of {', '.join(DRIVERS)}",
        )
    return driver(runner, claim)
