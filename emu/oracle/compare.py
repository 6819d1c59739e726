"""Two runs of one image, compared: all memory, all registers, console, and how they ended."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import Enum, StrEnum

from emu.oracle.case import Case
from emu.oracle.image import OracleImage, Placed, collector
from emu.oracle.outcome import Ended, Run, registers
from emu.units import PAGE_SIZE, show_phys
from emu.x86.bits import Eflags

MOST_SHOWN = 8
_WORD = 8
_ACCESSED = 0x20
_IDT, _IDT_EXT = 2, 3


class Verdict(StrEnum):
    """What a comparison came to."""

    AGREE = "agree"
    DIFFER = "differ"
    NOT_COMPARABLE = "not comparable"


class Known(Enum):
    """The differences that are no mistake of ours: what differs, and what the SDM says to it."""

    PDPTE_ACCESSED = (
        "Accessed bit in a PDPTE of PAE paging",
        "SDM 3A 4.4.1, table 4-8: the bit is reserved, and no PDPTE is written; QEMU sets it",
    )
    IDT_ERROR_CODE = (
        "error code of #GP where an interrupt's vector lies beyond the IDT's limit, in long mode",
        "SDM 3A 6.13: the vector times 8, with IDT and EXT set; QEMU gives the vector times 16, without EXT",
    )
    FAULT_RF = (
        "RF in the frame of a fault, where an interrupt could not be delivered",
        "SDM 3B 18.3.1.1: 1 in the frame of every fault; QEMU leaves it 0",
    )
    UNDEFINED_FLAGS = (
        "AF after AND, OR, XOR, TEST",
        "SDM 2A AND, 2B OR, TEST, XOR: AF is undefined",
    )

    @property
    def what(self) -> str:
        """The difference."""
        return str(self.value[0])

    @property
    def source(self) -> str:
        """Who decides."""
        return str(self.value[1])


@dataclass(frozen=True, slots=True)
class Difference:
    """One place where two machines differ."""

    place: str
    ours: str
    theirs: str

    def __str__(self) -> str:
        return f"{self.place}: {self.ours} here, {self.theirs} there"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One case on one other machine.  ``known`` counts the differences that are explained."""

    case: str
    machine: str
    verdict: Verdict
    reason: str = ""
    pages: int = 0
    pages_equal: int = 0
    registers: int = 0
    seconds: float = 0.0
    differences: tuple[Difference, ...] = ()
    known: Mapping[Known, int] = field(default_factory=dict)

    def to_json(self) -> dict[str, object]:
        """For ``--json``."""
        return {
            "case": self.case,
            "machine": self.machine,
            "verdict": str(self.verdict),
            "reason": self.reason,
            "pages": self.pages,
            "pages_equal": self.pages_equal,
            "registers": self.registers,
            "seconds": round(self.seconds, 3),
            "differences": [{"place": one.place, "kjump": one.ours, "other": one.theirs} for one in self.differences],
            "known": {known.what: count for known, count in self.known.items()},
        }


def not_comparable(case: str, machine: str, reason: str) -> Comparison:
    """A machine that cannot run a case; ``reason`` is never empty."""
    if not reason:
        raise AssertionError("what is not comparable has a reason")
    return Comparison(case, machine, Verdict.NOT_COMPARABLE, reason)


def compare(image: OracleImage, ours: Run, theirs: Run) -> list[Comparison]:
    """Each case of ``image`` on both machines."""
    said = _console(image, theirs.console)
    console = [Difference("console", repr(ours.console), repr(theirs.console))] if ours.console != said else []
    if theirs.ended is Ended.UNABLE:
        reason = f"this {theirs.machine} {theirs.why}"
        return [not_comparable(placed.case.name, theirs.machine, reason) for placed in image.cases]
    if ours.ended is not theirs.ended:
        end = [Difference("end", _end(ours), _end(theirs))]
        name = image.cases[0].case.name if len(image.cases) == 1 else f"{len(image.cases)} cases"
        return [Comparison(name, theirs.machine, Verdict.DIFFER, seconds=theirs.seconds, differences=(*end, *console))]
    return [_compare_case(placed, ours, theirs, console) for placed in image.cases]


def _error_codes(case: Case) -> tuple[int, int] | None:
    """What the error code is, and what QEMU makes of it, where the case's interrupt finds no gate; None: it may not."""
    if not case.takes_irq or not case.long_mode:
        return None
    return case.irq * 8 + _IDT_EXT, case.irq * 16 + _IDT


def _console(image: OracleImage, said: str) -> str:
    """The console of another machine, with the error codes that the manual has."""
    for placed in image.cases:
        codes = _error_codes(placed.case)
        if codes is not None:
            said = said.replace(f"error {codes[1]:016x}", f"error {codes[0]:016x}")
    return said


def _end(run: Run) -> str:
    return f"{run.ended.value} ({run.why})" if run.why else run.ended.value


def _compare_case(placed: Placed, ours: Run, theirs: Run, console: list[Difference]) -> Comparison:
    known: Counter[Known] = Counter()
    found = list(console)
    mine, other = registers(ours, placed), registers(theirs, placed)
    if ours.ended is Ended.DONE and (mine is None or other is None):
        found.append(Difference("end", *("reached" if state else "not reached" for state in (mine, other))))
    if mine is not None and other is not None:
        found += _registers(mine, other, known)
    pages = equal = 0
    for address, left, right in _pages(placed, ours, theirs):
        pages += 1
        if left == right:
            equal += 1
            continue
        before = len(found)
        found += _page(placed, address, left, right, known)
        equal += len(found) == before
    return Comparison(
        case=placed.case.name,
        machine=theirs.machine,
        verdict=Verdict.DIFFER if found else Verdict.AGREE,
        pages=pages,
        pages_equal=equal,
        registers=len(mine or ()),
        seconds=theirs.seconds,
        differences=tuple(found),
        known=dict(known),
        reason="" if ours.ended is Ended.DONE or found else f"{ours.ended.value}, on both",
    )


def _registers(mine: Mapping[str, int], other: Mapping[str, int], known: Counter[Known]) -> Iterator[Difference]:
    for name, value in mine.items():
        if value == other[name]:
            continue
        if name == "rflags" and value ^ other[name] == Eflags.AF:
            known[Known.UNDEFINED_FLAGS] += 1
            continue
        yield Difference(name, f"{value:#x}", f"{other[name]:#x}")


def _pages(placed: Placed, ours: Run, theirs: Run) -> Iterator[tuple[int, bytes, bytes]]:
    """Every page of a case's memory, by its address in the case."""
    for start, where, size in placed.stored:
        left, right = ours.read(where, size), theirs.read(where, size)
        for offset in range(0, size, PAGE_SIZE):
            part = slice(offset, offset + PAGE_SIZE)
            yield start + offset, left[part], right[part]


def _page(placed: Placed, address: int, left: bytes, right: bytes, known: Counter[Known]) -> Iterator[Difference]:
    case = placed.case
    program = collector(case.arch, case.end)
    results = range(
        case.end_phys + program.symbols["result_begin"] - program.org,
        case.end_phys + program.symbols["result_end"] - program.org,
    )
    for offset in range(0, len(left), _WORD):
        mine, other = left[offset : offset + _WORD], right[offset : offset + _WORD]
        at = address + offset
        if mine == other or (results.start - _WORD < at < results.stop and _outside_equal(mine, other, at, results)):
            continue
        if at & ~0x1F in case.pdpts and (mine[0] ^ other[0], mine[1:]) == (_ACCESSED, other[1:]):
            known[Known.PDPTE_ACCESSED] += 1
            continue
        if (_value(mine), _value(other)) == _error_codes(case):
            known[Known.IDT_ERROR_CODE] += 1
            continue
        if case.takes_irq and _value(mine) ^ _value(other) == Eflags.RF == _value(mine) & Eflags.RF:
            known[Known.FAULT_RF] += 1
            continue
        yield Difference(show_phys(at), mine.hex(" "), other.hex(" "))
        return


def _value(word: bytes) -> int:
    return int.from_bytes(word, "little")


def _outside_equal(mine: bytes, other: bytes, at: int, results: range) -> bool:
    """Whether two words are equal but for the collector's results, which are compared field by field."""
    return all(mine[i] == other[i] or at + i in results for i in range(len(mine)))
