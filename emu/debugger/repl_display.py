"""Commands that print values: ``print/FMT``, ``x/8gx``, ``display``."""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import NamedTuple

from emu.debugger.address import Address
from emu.debugger.examine import FORMATS, UNITS, examine, following, show_item
from emu.debugger.places import labelled
from emu.debugger.repl_command import Commands, command, rest, text_of
from emu.debugger.session import Session
from emu.errors import DebuggerError, KjumpError

_FORMAT = re.compile(r"/(-?\d{0,9})([a-z]*)\s*(.*)", re.DOTALL | re.ASCII)
_EXPRESSION = rest("expression", "an optional /FMT, then numbers, symbols, $registers, + - * / and the like")
_MOST = 4096


class Format(NamedTuple):
    """``/8gx``: count, letter of the format, letter of the unit."""

    many: int
    form: str
    unit: str
    rest: str


def read_format(text: str, form: str = "", unit: str = "") -> Format:
    """Take ``/FMT`` off the front of ``text``; ``form`` and ``unit`` are what is left out.  Raises DebuggerError."""
    match = _FORMAT.fullmatch(text.strip())
    if match is None:
        return Format(1, form, unit, text.strip())
    count = int(match.group(1)) if match.group(1) not in ("", "-") else 1
    if abs(count) > _MOST:
        raise DebuggerError(f"{count:,} items", hint=f"at most {_MOST:,}")
    if match.group(1) == "-":
        count = -1
    for letter in match.group(2):
        if letter in UNITS:
            unit = letter
        elif letter in FORMATS + "z":
            form = "x" if letter == "z" else letter
        else:
            raise DebuggerError(
                f"no format or unit is called {letter}", hint=f"formats {' '.join(FORMATS)}, units b h w g"
            )
    return Format(count, form, unit, match.group(3))


def printed(session: Session, text: str) -> str:
    """The value of an expression in the format before it; raises DebuggerError."""
    wanted = read_format(text)
    if not wanted.rest:
        raise DebuggerError("an expression is wanted here")
    place = session.evaluator.address(wanted.rest) if ":" in wanted.rest else None
    value = session.evaluator.number(wanted.rest) if place is None else place.value
    form = wanted.form or "x"
    if form == "a":
        return labelled(session, Address(value, physical=place is not None and place.physical))
    if form in "si":
        raise DebuggerError(f"format {form} is of memory", hint=f"x/{form} shows memory")
    if form == "d" and not wanted.unit:
        return str(value)
    size = 1 if form == "c" else UNITS[wanted.unit or "g"]
    value &= (1 << 8 * size) - 1
    if form in "xt":
        return f"{value:#x}" if form == "x" else f"{value:b}"
    return show_item(value.to_bytes(size, "little"), form)


@dataclass(slots=True)
class Display:
    """An expression that is shown at every stop; ``memory`` when it is shown as ``x`` does."""

    number: int
    text: str
    memory: bool
    enabled: bool = True


class Displays:
    """All displays of a session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.all: list[Display] = []
        self._next = 1

    def add(self, text: str) -> Display:
        """Show ``text`` (with its /FMT) at every stop; raises DebuggerError when it cannot be shown now."""
        wanted = read_format(text)
        memory = wanted.form in ("s", "i") or bool(wanted.unit) or wanted.many != 1
        display = Display(self._next, text, memory)
        self.shown(display)
        self.all.append(display)
        self._next += 1
        return display

    def remove(self, numbers: list[str]) -> None:
        """Forget displays by number, or all; raises DebuggerError for a number that there is not."""
        known = {str(display.number) for display in self.all}
        for number in numbers:
            if number not in known:
                raise DebuggerError(f"there is no display {number}", hint="info display lists them")
        self.all = [display for display in self.all if numbers and str(display.number) not in numbers]

    def shown(self, display: Display) -> list[str]:
        """A display's lines; raises DebuggerError where it cannot be evaluated."""
        if not display.memory:
            return [f"{display.number}: {display.text} = {printed(self._session, display.text)}"]
        wanted = read_format(display.text, "x", "")
        address = self._session.evaluator.address(wanted.rest)
        lines = examine(self._session, address, wanted.many, wanted.form, wanted.unit)
        return [f"{display.number}: x{display.text}", *lines]

    def lines(self) -> Iterator[str]:
        """What every stop shows; what cannot be evaluated there says so."""
        for display in self.all:
            try:
                yield from self.shown(display)
            except KjumpError as error:
                yield f"{display.number}: {display.text}: {error}"


class Printing(Commands):
    """Values."""

    DEFAULT_CATEGORY = "Look"

    def __init__(self) -> None:
        super().__init__()
        self._form, self._unit = "x", ""
        self._next: Address | None = None

    @command("print", _EXPRESSION)
    def print(self, args: argparse.Namespace) -> None:
        """The value of an expression (p): hexadecimal, or as /FMT says (x d u o t c a f)."""
        self.say(printed(self.session, text_of(args, "expression")))

    @command("x", rest("address", "an optional /FMT (count, format, unit: /8gx), then an address"), repeats=True)
    def x(self, args: argparse.Namespace) -> None:
        """Memory.  Formats x d u o t a c s i f, units b h w g; without an address, or by Enter, behind the last."""
        self._examine(text_of(args, "address"), physical=False, name="x")

    @command("xp", rest("address", "an optional /FMT, then a physical address"), repeats=True)
    def xp(self, args: argparse.Namespace) -> None:
        """Physical memory, as x shows linear memory."""
        self._examine(text_of(args, "address"), physical=True, name="xp")

    def _examine(self, text: str, *, physical: bool, name: str) -> None:
        wanted = read_format(text, self._form, self._unit)
        form = wanted.form
        unit = "" if form in "sia" or (form == "f" and wanted.unit == "b") else wanted.unit
        if wanted.rest:
            address = self.address(wanted.rest)
            address = Address(address.value, physical=physical or address.physical)
        elif self._next is not None:
            address = self._next
        else:
            raise DebuggerError("an address is wanted here", hint=f"{name}/8gx $rsp")
        self.say(*examine(self.session, address, wanted.many, form, unit, width=self._cmd.width))
        self._next = following(self.session, address, wanted.many, form, unit)
        self._form = form
        self._unit = unit or self._unit
        self._cmd.repeat = f"{name}/{wanted.many}{form}{unit}"

    @command("display", _EXPRESSION)
    def display(self, args: argparse.Namespace) -> None:
        """Show an expression at every stop; with a count, a unit or format i or s, memory: display/4gx $rsp."""
        text = text_of(args, "expression")
        shown = self._cmd.displays.shown(self._cmd.displays.add(text)) if text else self._cmd.displays.lines()
        self.say(*shown)

    @command("undisplay", rest("numbers", "of displays (default: all)", complete=""))
    def undisplay(self, args: argparse.Namespace) -> None:
        """Do not show a display any more."""
        self._cmd.displays.remove(text_of(args, "numbers").split())
