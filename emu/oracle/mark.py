"""A marked instruction of a movement: how a person names it, and how the recording machine gets there."""

from __future__ import annotations

import re
from dataclasses import dataclass

from emu.errors import KjumpError
from emu.journey import movement
from emu.journey.journey import Journey
from emu.machine import events as ev

_LIMIT = 100_000_000
_SYMBOL = re.compile(r"([A-Za-z_.][\w.]*)(?:\+(\w+))?")


@dataclass(frozen=True, slots=True)
class Mark:
    """An instruction of the stub: ``offset`` bytes from ``symbol``, the first time that it is reached in a movement.

    Without a symbol, ``offset`` counts the instructions of the movement that come before it.
    """

    symbol: str
    offset: int

    def __str__(self) -> str:
        if not self.symbol:
            return f"instruction {self.offset:,} of the movement"
        return f"{self.symbol}+{self.offset:#x}" if self.offset else self.symbol

    def addresses(self, journey: Journey) -> frozenset[int]:
        """Every linear address at which the stubs of ``journey`` have it: identity, direct map, a kernel's text."""
        loaded = journey.require_loaded()
        direct = journey.scene.arch.direct
        found: set[int] = set()
        caller = loaded.linux.caller if loaded.linux is not None else None
        for image in (loaded.stub, loaded.second, loaded.jump_entry, caller):
            if image is not None and self.symbol in image.symbols:
                at = image.symbols[self.symbol] - image.org + self.offset
                found |= {image.org + at, int(direct(image.org)) + at}
                if image is loaded.stub and loaded.linux is not None and loaded.linux.text:
                    found.add(loaded.linux.text + at)
        return frozenset(found)


def parse_mark(text: str) -> Mark:
    """``N``, ``SYMBOL`` or ``SYMBOL+OFFSET`` (numbers by C rules); raises KjumpError."""
    try:
        if text[:1].isdigit():
            return Mark("", int(text, 0))
        match = _SYMBOL.fullmatch(text)
        if match is not None:
            return Mark(match[1], int(match[2] or "0", 0))
    except ValueError:
        pass
    raise KjumpError(f"{text!r} marks no instruction", where="--irq", hint="N, or SYMBOL+OFFSET as swap_pages+0x10")


def advance(journey: Journey, mark: Mark) -> str:
    """Run from a movement's first instruction to ``mark``; the answer says why it is not reached, or is empty."""
    machine = journey.machine
    wanted = mark.addresses(journey) if mark.symbol else frozenset[int]()
    if mark.symbol and not wanted:
        return f"the stub has no symbol {mark.symbol}"
    if machine.cpu.pc in wanted or not (mark.symbol or mark.offset):
        return ""
    machine.break_outside(movement.linear_pages(journey))
    for address in wanted:
        machine.break_at(address)
    outcome = machine.run(_LIMIT) if mark.symbol else machine.run(_LIMIT, instructions=mark.offset)
    for address in wanted:
        machine.clear_break(address)
    machine.clear_break_in()
    reached = machine.cpu.pc in wanted if mark.symbol else isinstance(outcome, ev.StepLimit)
    return "" if reached else f"this movement never comes to {mark}"
