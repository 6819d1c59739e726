"""Target ``list``: entry lists, valid by construction and then damaged, carried out by the stub and by the model.

The list begins in the first list page, as many entries as the case has, and DONE after them.  Where a list leads the
stub onto its own ground (its page, the tables, the swap page) no model can say what follows; the owner policy, taken
from the list itself, holds everywhere else.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field

from emu.fuzz.case import Case, Value
from emu.fuzz.fields import Choice, Word, Words, neutral, noise_field
from emu.fuzz.pages import same
from emu.fuzz.stage import Ended
from emu.fuzz.target import Target
from emu.fuzz.trip import LIMIT, Trip
from emu.fuzz.verdict import Result, Verdict
from emu.fuzz.window import SUSPEND
from emu.fuzz.world import TripWorld
from emu.journey.scene import Scene
from emu.kexec.entry_list import Mode, StepKind, WalkStep, apply, walk
from emu.kexec.layout import Ind, RelocateFlag
from emu.machine.owners import Owner
from emu.machine.ram import Ram
from emu.units import PAGE_SHIFT, PAGE_SIZE, Phys

_FLAGS = tuple(map(int, (Ind.DESTINATION, Ind.SOURCE, Ind.SOURCE, Ind.SOURCE, Ind.INDIRECTION, Ind.DONE, 0)))
"""As plain numbers: an IntFlag remembers every value that it was ever combined to."""
_MOST_STEPS = 160
_MOST_MOVES = 18
"""Pages moved in one case: three times as many are copied, in 512 ticks each, in 1,024 where a word has four bytes."""
_SHORT, _SHORT_INSTRUCTIONS = 2000, 800
"""Ticks and instructions for a list that no model can follow: only what it stores to is looked at."""
_OWN = (Owner.CONTROL, Owner.PAGE_TABLE, Owner.SWAP)
CLEAN, OWN_GROUND, ENDLESS, NO_RAM = "clean list", "own ground", "no end", "holes"


class EntryWord(Word):
    """One word of a list: a page of interest, a flag, and now and then bits that mean nothing."""

    def draw(self, rng: random.Random) -> Value:
        """Mostly a page of the window with one flag."""
        dice = rng.random()
        page = rng.choice(self.legal if dice < 0.85 else self.points) & -PAGE_SIZE
        flag = rng.choice(_FLAGS)
        noise = rng.getrandbits(12) if rng.random() < 0.1 else 0
        return (page | flag | noise) & (1 << self.bits) - 1


@dataclass(slots=True)
class _Model:
    """RAM as the model of a list leaves it; ``named`` are the page frames that the list leads the stub to."""

    ram: Ram
    pages: dict[int, bytes] = field(default_factory=dict)
    named: set[int] = field(default_factory=set)
    steps: list[WalkStep] = field(default_factory=list)

    def read(self, page: int) -> bytes:
        pfn = page >> PAGE_SHIFT
        return self.pages[pfn] if pfn in self.pages else self.ram.read(page & -PAGE_SIZE, PAGE_SIZE)

    def write(self, page: int, content: bytes) -> None:
        if self.ram.is_ram(page):
            self.pages[page >> PAGE_SHIFT] = content

    def word(self, at: int, size: int) -> int:
        page = self.pages.get(at >> PAGE_SHIFT)
        offset = at & (PAGE_SIZE - 1)
        return self.ram.read_int(at, size) if page is None else int.from_bytes(page[offset : offset + size], "little")


class ListWorld(TripWorld):
    """Entry lists in one scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        word = scene.arch.word
        trip = self.trip(SUSPEND)
        machine, image = trip.window.journey.machine, trip.window.loaded.image
        self._page = int(image.list_pages[0])
        self._more = [int(page) for page in image.list_pages[1:3]]
        self._swap = int(image.swap_page or 0)
        self._head = image.head
        self._ticks = LIMIT * 8 // word
        self._own = {pfn for owner in _OWN for pfn in machine.owners.pfns(owner)}
        self._own.add(trip.window.loaded.start >> PAGE_SHIFT)
        stack = machine.cpu.walk(machine.cpu.rsp & (1 << 8 * word) - 1).physical or 0
        self._own.add(stack >> PAGE_SHIFT)
        pairs = [int(page) for pair in trip.window.kept for page in pair]
        points = [pfn << PAGE_SHIFT for pfn in self._own] + [self._page, *self._more, stack]
        points += [0, 0x9F000, 0xA0000, 0xF0000, (1 << 8 * word) - PAGE_SIZE]
        points += [edge for bank in machine.ram.banks for edge in (bank.start, bank.end - PAGE_SIZE, bank.end)]
        each = EntryWord("entry", 8 * word, tuple(points), tuple(pairs), neutral=0)
        self._valid = tuple(_entries(trip))
        self.spec = (
            Words("entries", each, PAGE_SIZE // word - 1, (), 24),
            Choice("head", ("list", "list", "list", "done", "entry")),
            Choice("flags", ("preserve", "swap", "copy", "incoherent") if word == 8 else ("preserve",)),
            noise_field(word),
        )
        self.rows = (CLEAN, OWN_GROUND, ENDLESS, NO_RAM)

    def seeds(self) -> Sequence[Case]:
        """The window's own list, and the null list."""
        plain = neutral("list", self.spec)
        null = (int(Ind.DESTINATION), int(Ind.DONE))
        return [plain.with_value("entries", self._valid), plain.with_value("entries", null)]

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset, lay the list down, and give its head to the stub."""
        trip = self.trip(SUSPEND)
        trip.stage.reset()
        word = self.scene.arch.word
        entries = (*case.words("entries"), int(Ind.DONE))
        trip.stage.write(self._page, b"".join(entry.to_bytes(word, "little") for entry in entries))
        trip.set_noise(case.blob("registers"))
        trip.set_head(self.head_of(case), self.flags_of(case))
        return trip, False

    def head_of(self, case: Case) -> int:
        """The first entry, by value."""
        entries = case.words("entries")
        kinds = {"list": self._head, "done": int(Ind.DONE), "entry": entries[0] if entries else 0}
        return kinds[case.word("head")]

    @staticmethod
    def flags_of(case: Case) -> int:
        """The flag word of the call."""
        flags = {
            "preserve": RelocateFlag.PRESERVE_CONTEXT,
            "swap": RelocateFlag.PRESERVE_CONTEXT | RelocateFlag.SWAP,
            "copy": 0,
            "incoherent": RelocateFlag.CACHE_INCOHERENT | RelocateFlag.PRESERVE_CONTEXT,
        }
        return int(flags[case.word("flags")])

    def run(self, case: Case) -> Result:
        """Let stub and model carry the list out, and compare."""
        trip, _ = self.put(case)
        model = _Model(trip.stage.machine.ram)
        row = self._model(model, case)
        for step in model.steps:
            self.covers(f"entry {step.kind.value}", min(len(model.named), 3))
        ended = trip.stage.run(self._ticks) if row in (CLEAN, NO_RAM) else trip.stage.run(_SHORT, _SHORT_INSTRUCTIONS)
        return self._judge(trip, model, ended, row)

    def _model(self, model: _Model, case: Case) -> str:
        """Apply the list; the answer is what kind of list it is."""
        word = self.scene.arch.word
        plain = case.word("flags") == "copy"
        swap = None if plain else Phys(self._swap)

        row, moves = CLEAN, 0
        for step in walk(lambda at: model.word(int(at), word), self.head_of(case), word, _MOST_STEPS):
            model.steps.append(step)
            if step.kind in (StepKind.LIMIT, StepKind.NO_LIST):
                return ENDLESS
            if step.kind is StepKind.INDIRECTION and not model.ram.is_ram(int(step.source)):
                row = NO_RAM
            if step.kind is not StepKind.SOURCE:
                continue
            moves += 1
            if moves > _MOST_MOVES:
                return ENDLESS
            touched = {int(step.destination) >> PAGE_SHIFT, int(step.source) >> PAGE_SHIFT}
            model.named |= touched
            if touched & self._own:
                return OWN_GROUND
            if not all(model.ram.is_ram(pfn << PAGE_SHIFT) for pfn in touched):
                row = NO_RAM
            mode = Mode.COPY if plain else Mode.SWAP
            apply(
                lambda page: model.read(int(page)), lambda page, data: model.write(int(page), data), [step], mode, swap
            )
        return row

    def _judge(self, trip: Trip, model: _Model, ended: Ended, row: str) -> Result:
        arrived = ended.arrived == trip.window.loaded.start
        outside = [pfn for pfn in trip.stage.pages.changed() if pfn not in model.named and pfn not in self._own]
        outside = [pfn for pfn in outside if not self._mine(trip, pfn)]
        if outside and row not in (OWN_GROUND, ENDLESS):
            detail = trip.stage.pages.first_difference(outside[0] << PAGE_SHIFT)
            return trip.result(Verdict.OWNER, ended, row, "store outside the list", detail)
        if row in (OWN_GROUND, ENDLESS):
            damage = bool(outside) or bool(trip.stage.pages.strays())
            return trip.result(Verdict.WILD if damage else Verdict.DETECTED, ended, row)
        if not arrived:
            return trip.result(Verdict.MODEL if row == CLEAN else Verdict.DETECTED, ended, row)
        wrong = self._differ(trip, model)
        if wrong:
            owner = trip.stage.machine.owners.at(wrong[0] << PAGE_SHIFT)
            detail = f"p:{wrong[0] << PAGE_SHIFT:#x} is not as the model has it"
            return trip.result(Verdict.MODEL, ended, row, f"memory of {owner}", detail)
        return trip.result(Verdict.COMPLETED, ended, row)

    def _mine(self, trip: Trip, pfn: int) -> bool:
        """Whether the case itself wrote there."""
        return any(address >> PAGE_SHIFT == pfn for address, _ in trip.stage.written)

    def _differ(self, trip: Trip, model: _Model) -> list[int]:
        """Page frames that the stub left otherwise than the model."""
        pages, ram = trip.stage.pages, trip.stage.machine.ram
        suspects = pages.suspects()
        masks = {one.pfn: one.mask for one in suspects}
        wanted = {one.pfn: one.base for one in suspects}
        for address, data in trip.stage.written:
            pfn, offset = address >> PAGE_SHIFT, address & (PAGE_SIZE - 1)
            base = wanted.get(pfn, pages.base_of(pfn))
            wanted[pfn] = base[:offset] + data + base[offset + len(data) :]
        wanted |= model.pages
        wanted.pop(self._swap >> PAGE_SHIFT, None)
        full = (1 << 8 * PAGE_SIZE) - 1
        bad = [pfn for pfn, content in wanted.items() if not same(ram.page(pfn), content, masks.get(pfn, full))]
        return sorted(bad)


def _entries(trip: Trip) -> Sequence[int]:
    """The window's list as words, without its DONE."""
    found: list[int] = []
    cursor = -1
    for destination, source in trip.window.kept:
        if destination != cursor:
            found.append(int(destination) | int(Ind.DESTINATION))
        found.append(int(source) | int(Ind.SOURCE))
        cursor = int(destination) + PAGE_SIZE
    return found[: 2 * _MOST_MOVES]


TARGET = Target(
    "list",
    "entry lists, valid by construction and then damaged, against the reference model",
    "the stub leaves memory as the model does, and stores to no page that the list does not name",
    ListWorld,
    (
        (OWN_GROUND, "a list that names the stub's page, its tables or its swap page; the loader never makes one"),
        (ENDLESS, "a list without DONE; the loader never makes one"),
    ),
)
