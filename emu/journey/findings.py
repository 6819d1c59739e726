"""A finding: one cause, what follows from it, and the evidence of this very run."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from emu.machine.events import Position


@dataclass(frozen=True, slots=True)
class Finding:
    """One checked fact that does not hold.

    ``where`` is ``file:line: symbol+offset `source` `` as far as known; ``because`` holds evidence only; ``follows``
    are the findings that this one explains.  ``address`` is the physical address of the first wrong byte, where the
    fact is one about memory.
    """

    kind: str
    transition: str
    tick: int
    position: Position | None
    where: str
    expected: str
    actual: str
    because: tuple[str, ...] = ()
    catalogue: str = ""
    follows: tuple[str, ...] = field(default=())
    address: int | None = None

    def one_line(self) -> str:
        """The finding in a line, for a list of consequences."""
        at = f"N {self.position}, " if self.position is not None else ""
        return f"{at}{self.kind} in {self.transition}: {self.actual}"


def fold(findings: list[Finding]) -> list[Finding]:
    """The earliest finding as the cause, the others as what follows from it.

    A jump that went wrong leaves everything after it wrong; what remains when the cause is mended shows in the next
    run.
    """
    if not findings:
        return []
    ordered = sorted(enumerate(findings), key=lambda pair: (pair[1].tick, pair[0]))
    cause, rest = ordered[0][1], [finding for _, finding in ordered[1:]]
    same = [finding for finding in rest if finding.tick == cause.tick and finding.kind == cause.kind]
    extra = tuple(line for finding in same for line in finding.because if line not in cause.because)
    return [replace(cause, because=cause.because + extra, follows=tuple(finding.one_line() for finding in rest))]
