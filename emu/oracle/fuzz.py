"""Random calls of relocate_new_kernel on several machines, many to a boot.

A batch that ends differently on two machines is run again case by case, so that a finding names one case, which is
kept as an image that any of the machines can boot.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from emu.errors import KjumpError
from emu.kexec.arch import Arch
from emu.oracle.arena import random_case
from emu.oracle.case import Case
from emu.oracle.compare import Comparison, Known, Verdict, compare, not_comparable
from emu.oracle.image import build_image
from emu.oracle.machines import Other, Witness
from emu.oracle.ours import run_ours
from emu.oracle.outcome import Ended

BATCH = 200
"""Cases a boot."""
MOST_KEPT = 20


@dataclass(slots=True)
class _Tally:
    """What one machine came to over all batches."""

    cases: int = 0
    pages: int = 0
    equal: int = 0
    registers: int = 0
    seconds: float = 0.0
    differ: int = 0
    unable: int = 0
    reason: str = ""
    known: Counter[Known] = field(default_factory=Counter)

    def add(self, rows: Sequence[Comparison], seconds: float) -> None:
        self.seconds += seconds
        for row in rows:
            if row.verdict is Verdict.NOT_COMPARABLE:
                self.unable, self.reason = self.unable + 1, row.reason
                continue
            self.cases += 1
            self.pages += row.pages
            self.equal += row.pages_equal
            self.registers += row.registers
            self.differ += row.verdict is Verdict.DIFFER
            self.known.update(row.known)

    def row(self, arch: Arch, machine: Other) -> Comparison:
        verdict = Verdict.DIFFER if self.differ else Verdict.AGREE
        reason = f"{self.unable:,} cases not comparable: {self.reason}" if self.unable else ""
        if not self.cases:
            return not_comparable(f"{arch}", machine, reason or "no cases")
        return Comparison(
            f"{arch}, {self.cases:,}", machine, verdict, reason, self.pages, self.equal, self.registers, self.seconds,
            (), dict(self.known),
        )  # fmt: skip


@dataclass(frozen=True, slots=True)
class FuzzReport:
    """``summary`` has a row a machine; ``rows`` those and the cases that differ; ``saved`` the images kept of them."""

    arch: Arch
    cases: int
    seed: int
    summary: list[Comparison]
    rows: list[Comparison]
    saved: list[Path]
    ours: float = 0.0


def fuzz(arch: Arch, count: int, seed: int, witnesses: Sequence[Witness], out: Path | None = None) -> FuzzReport:
    """Compare ``count`` random cases of ``arch``; images of cases that differ are kept in ``out``."""
    refusals = {one.name: one.refuses(arch) for one in witnesses}
    usable = [one for one in witnesses if not refusals[one.name]]
    tallies = {one.name: _Tally() for one in usable}
    different: list[Comparison] = []
    saved: list[Path] = []
    ours = 0.0
    for first in range(0, count if usable else 0, BATCH):
        cases = [random_case(arch, seed, number) for number in range(first, min(first + BATCH, count))]
        for one, rows, seconds, here in _batch(cases, usable):
            ours += here
            tallies[one.name].add(rows, seconds)
            for row in rows:
                if row.verdict is Verdict.DIFFER:
                    different.append(row)
                    if out is not None and len(saved) < MOST_KEPT:
                        saved.append(_keep(out, row, cases))
    summary = [tallies[one.name].row(arch, one.name) for one in usable]
    summary += [not_comparable(f"{arch}", name, reason) for name, reason in refusals.items() if reason]
    return FuzzReport(arch, count, seed, summary, [*summary, *different], saved, ours)


def _batch(cases: Sequence[Case], witnesses: Sequence[Witness]) -> list[tuple[Witness, list[Comparison], float, float]]:
    """Each witness's rows for ``cases``, its seconds, and (once) our own."""
    image = build_image(cases, in_place=False)
    ours = run_ours(image)
    found = []
    here = ours.seconds
    for one in witnesses:
        theirs = one.run(image)
        whole = ours.ended is Ended.DONE and theirs.ended is Ended.DONE
        if whole or len(cases) == 1:
            found.append((one, compare(image, ours, theirs), theirs.seconds, here))
        else:
            rows = [row for case in cases for row in _batch([case], [one])[0][1]]
            found.append((one, rows, theirs.seconds, here))
        here = 0.0
    return found


def _keep(out: Path, row: Comparison, cases: Sequence[Case]) -> Path:
    """Write the case of ``row`` as an image of its own."""
    case = next(case for case in cases if case.name == row.case)
    path = out / f"{case.name.replace(' ', '-').replace('(', '').replace(')', '')}.elf"
    try:
        out.mkdir(parents=True, exist_ok=True)
        path.write_bytes(build_image([case], in_place=False).elf())
    except OSError as error:
        raise KjumpError(f"cannot be written: {error.strerror}", where=str(path)) from error
    return path
