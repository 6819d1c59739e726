"""Evidence for a finding: the run is made again, up to the transition of the finding, and looked at more closely.

A run of the same scene is the same run, so what is seen in the second is true of the first.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING

from emu.errors import KjumpError
from emu.journey import departure, programs
from emu.journey.departure import Step, steps_of
from emu.journey.findings import Finding
from emu.journey.scene import Scene, kind_of
from emu.machine.events import Position
from emu.machine.machine import Machine
from emu.units import PAGE_MASK, PAGE_SIZE, show_phys

if TYPE_CHECKING:
    from emu.journey.journey import Journey

MOVING = ("suspend", "return", "rejump", "restore", "resume")
"""The transitions in which pages move, whatever round of each."""


class Probe:
    """Looks on while pages move: records each instruction, or the stores to one page (``page``, physical).

    The run is over behind the movement called ``last``.
    """

    def __init__(self, last: str, page: int | None = None) -> None:
        self.last = last
        self.record: dict[str, list[tuple[int, Position]]] = {}
        self.stores: dict[str, list[tuple[int, int, Position]]] = {}
        self._page = page
        self._machine: Machine | None = None
        self._handle = 0

    def begin(self, machine: Machine, name: str) -> None:
        """The movement ``name`` is about to run."""
        self._machine = machine
        if self._page is None:
            record = self.record.setdefault(name, [])
            self._handle = machine.watch_instructions(lambda pc: record.append((pc, machine.count.position(pc))))
            return
        stores = self.stores.setdefault(name, [])

        def stored(address: int, _size: int, _value: int, _write: bool) -> None:
            position, _, pc = machine.here()
            stores.append((pc, address, position))

        self._handle = machine.watch(self._page, self._page + PAGE_SIZE - 1, stored)

    def end(self) -> None:
        """The movement is over."""
        machine = self._machine
        if machine is None:
            return
        if self._page is None:
            machine.unwatch_instructions(self._handle)
        else:
            machine.unwatch(self._handle)
        self._machine = None


def explain(journey: Journey, finding: Finding) -> Finding:
    """``finding`` with the evidence that a second run gives."""
    if kind_of(finding.transition) not in MOVING:
        return finding
    evidence: list[str] = []
    if journey.scene.stubs and journey.require_loaded().linux is None:
        evidence += _departure(journey, finding.transition)
    if finding.address is not None:
        evidence += _who_stored(journey, finding.transition, finding.address)
    return replace(finding, because=(*evidence, *finding.because))


def _again(journey: Journey, scene: Scene, probe: Probe) -> Journey:
    """Run ``scene`` once more, at the fast speed: an onlooker needs the hooks of the strict one."""
    second = type(journey)(replace(scene, strict=False, checks=False, image=None), probe=probe)
    second.run()
    return second


def _departure(journey: Journey, until: str) -> Iterator[str]:
    """The first instruction of the replaced stubs that the built-in ones do not execute, or the other way round."""
    mine = _recorded(journey, journey.scene, until)
    try:
        theirs = _built_in(journey, until)
    except KjumpError:  # the scene makes no sense with the built-in stubs: nothing to compare with
        return
    names = [name for name in journey.scene.journey.transitions if kind_of(name) in MOVING]
    for name in names[: names.index(until) + 1]:
        found = departure.first(mine.get(name, []), theirs.get(name, []))
        if found:
            yield found
            return


def _recorded(journey: Journey, scene: Scene, until: str) -> dict[str, list[Step]]:
    probe = Probe(until)
    second = _again(journey, scene, probe)
    return {name: steps_of(record, second.symbols) for name, record in probe.record.items()}


def _built_in(journey: Journey, until: str) -> dict[str, list[Step]]:
    """The record of the same scene with the built-in stubs; the last ones are kept, for they never change."""
    scene = replace(journey.scene, stubs=())
    files = programs.stub_files(scene)
    images = [
        programs.load(path, PAGE_SIZE, scene.arch) for path in (files.relocate, files.jump_entry, files.purgatory)
    ]
    images += [journey.kernel_a, journey.kernel_b]
    key = (repr(scene), until, *(image.sha256 for image in images))
    if key not in _KEPT:
        while len(_KEPT) >= _MOST_KEPT:
            del _KEPT[next(iter(_KEPT))]
        _KEPT[key] = _recorded(journey, scene, until)
    return _KEPT[key]


_KEPT: dict[tuple[str, ...], dict[str, list[Step]]] = {}
_MOST_KEPT = 4


def _who_stored(journey: Journey, name: str, address: int) -> Iterator[str]:
    """Which instructions of movement ``name`` stored to the page of ``address``."""
    page = address & ~PAGE_MASK
    probe = Probe(name, page)
    second = _again(journey, journey.scene, probe)
    stores = probe.stores.get(name, [])
    if not stores:
        yield f"nothing stored to page {show_phys(page)} in this movement"
        return
    pc, _, position = stores[-1]
    yield f"last store to page {show_phys(page)} at N {position}, by {second.symbols.place(pc)}"
    here = [store for store in stores if store[1] <= address < store[1] + 8]
    if here and here[-1] != stores[-1]:
        pc, at, position = here[-1]
        yield f"last store to {show_phys(at)} at N {position}, by {second.symbols.place(pc)}"
