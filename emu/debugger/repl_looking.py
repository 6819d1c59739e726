"""Commands that look at code, memory and what A and B tell each other; those that run the machine to look come back."""

from __future__ import annotations

import argparse
import re

from emu.debugger import look
from emu.debugger.address import Address
from emu.debugger.examine import UNITS
from emu.debugger.places import source_around
from emu.debugger.repl_command import Commands, command, maybe, one, rest, some, text_of, words
from emu.errors import DebuggerError

_MODE = re.compile(r"/(16|32|64)\s*(.*)")
_SIZED = re.compile(r"/([bhwg])\s*(.*)", re.DOTALL)
_MOST = 1000
_LISTED = 10
_HERE = rest("address", "linear, or p: physical (default: the next instruction)")


class Code(Commands):
    """Code and source."""

    DEFAULT_CATEGORY = "Look"

    def __init__(self) -> None:
        super().__init__()
        self._listed: int | None = None
        self._stood = -1

    @command(
        "disassemble",
        rest("range", "/16 /32 /64 for another mode; nothing (this routine), ADDRESS [COUNT], A,B or A,+SIZE"),
        repeats=True,
    )
    def disassemble(self, args: argparse.Namespace) -> None:
        """Instructions with symbols and source (disas), in the mode that CS gives."""
        text = text_of(args, "range")
        mode = _MODE.fullmatch(text)
        bits = int(mode.group(1)) if mode is not None else None
        text = mode.group(2) if mode is not None else text
        width = self._cmd.width
        if not text:
            start, end = look.routine(self.session, self.session.pc)
            self.say(*look.disassemble(self.session, Address(start), end=end, bits=bits, width=width))
            return
        first, comma, last = text.partition(",")
        if comma:
            begin = self.address(first)
            end = self.number(last.strip().removeprefix("+"))
            end += begin.value if last.strip().startswith("+") else 0
            self.say(*look.disassemble(self.session, begin, end=end, bits=bits, width=width))
            return
        given = text.split()
        count = self.number(given.pop()) if len(given) == 2 else 10
        if not 1 <= count <= _MOST:
            raise DebuggerError(f"{count:,} instructions", hint=f"1 to {_MOST:,}")
        self.say(*look.disassemble(self.session, self.address(" ".join(given)), count, bits=bits, width=width))

    @command("list", rest("location", "symbol, file:line, address (default: here; Enter goes on)"), repeats=True)
    def list(self, args: argparse.Namespace) -> None:
        """Source lines around a location (l)."""
        text = text_of(args, "location")
        if text:
            self._listed = None
        pc = self.session.pc
        goes_on = not text and self._listed is not None and self._stood == pc
        around = self._listed if goes_on and self._listed is not None else pc
        if text:
            around = self.address(text).value
        rows = source_around(self.session, around, 0 if goes_on else _LISTED // 2, _LISTED if goes_on else _LISTED // 2)
        if goes_on:
            rows = rows[1:]
        if not rows:
            raise DebuggerError(f"no source is known at {around:#x}", hint="disas shows instructions")
        for number, linear, source, _ in rows:
            self.say(f"{'>' if linear == pc else ' '} {number:>5}  {source}")
        self._listed, self._stood = rows[-1][1], pc
        self._cmd.repeat = "list"

    @command("backtrace")
    def backtrace(self, _args: argparse.Namespace) -> None:
        """The calls that led here, where frames allow (bt, where)."""
        self.say(*look.bt(self.session, width=self._cmd.width))


class Looking(Commands):
    """Registers, memory, the jump."""

    DEFAULT_CATEGORY = "Look"

    @command("regs", repeats=True)
    def regs(self, _args: argparse.Namespace) -> None:
        """General registers, flags and mode; * marks what the last command changed."""
        self.say(*look.regs(self.session, self._cmd.width))

    @command("creg")
    def creg(self, _args: argparse.Namespace) -> None:
        """Control registers, EFER and debug registers, bit by bit."""
        self.say(*look.creg(self.session, self._cmd.width))

    @command("sreg")
    def sreg(self, _args: argparse.Namespace) -> None:
        """Segment and table registers with their hidden parts."""
        self.say(*look.sreg(self.session, self._cmd.width))

    def _here(self, args: argparse.Namespace) -> Address:
        text = text_of(args, "address")
        return self.address(text) if text else Address(self.session.pc)

    @command("walk", _HERE)
    def walk(self, args: argparse.Namespace) -> None:
        """The page walk, level by level, and what would fault: read, write, execute, user."""
        self.say(*look.walk(self.session, self._here(args), self._cmd.width))

    @command("v2p", _HERE)
    def v2p(self, args: argparse.Namespace) -> None:
        """The physical address behind a linear one."""
        self.say(*look.v2p(self.session, self._here(args)))

    @command("p2v", some("address", "physical, with or without p:"))
    def p2v(self, args: argparse.Namespace) -> None:
        """The linear addresses at which a physical one is seen."""
        self.say(*look.p2v(self.session, self.address(text_of(args, "address")).value, self._cmd.width))

    @command("maps")
    def maps(self, _args: argparse.Namespace) -> None:
        """Everything that the page tables map now."""
        self.say(*look.maps(self.session, self._cmd.width))

    @command("jumpbuf")
    def jumpbuf(self, _args: argparse.Namespace) -> None:
        """The jump page: fields, meaning, changes since the last transition."""
        self.say(*look.jumpbuf(self.session, self._cmd.width))

    @command(
        "kimage",
        maybe("start", "number of an entry, `ranges`, or `pages`", choices=("ranges", "pages")),
        maybe("count", "of entries"),
    )
    def kimage(self, args: argparse.Namespace) -> None:
        """The entry list and where the walk is now; ranges joins what moves alike, pages lists what the image owns."""
        start = text_of(args, "start")
        if start in ("ranges", "pages"):
            lines = look.kimage(self.session, ranges=start == "ranges", paging=start == "pages", width=self._cmd.width)
        else:
            count = self.count(args) if text_of(args, "count") else None
            if count is not None and count > _MOST:
                raise DebuggerError(f"{count:,} entries", hint=f"at most {_MOST:,}")
            lines = look.kimage(self.session, self.number(start) if start else None, count, width=self._cmd.width)
        self.say(*lines)

    @command("owner", _HERE)
    def owner(self, args: argparse.Namespace) -> None:
        """Whose page this is, what the list does with it, where it is mapped."""
        self.say(*look.owner(self.session, self._here(args), self._cmd.width))

    @command("diff", one("n", "a position"), maybe("m", "another (default: this one)"), moves=True, repeats=False)
    def diff(self, args: argparse.Namespace) -> None:
        """What differs in memory between two positions, by owner and symbol."""
        second = text_of(args, "m")
        until = self.number(second) if second else self.session.position.n
        self.say(*look.diff(self.session, self.number(text_of(args, "n")), until, self._cmd.width))

    @command(
        "search", rest("pattern", '/b to /g and a number, hex bytes or "text"; then `in ADDRESS SIZE`', complete="")
    )
    def search(self, args: argparse.Namespace) -> None:
        """Where a value occurs: in all of RAM (physical), or in a range."""
        text = str(args.cmd2_statement)
        sized = _SIZED.fullmatch(text)
        size = UNITS[sized.group(1)] if sized is not None else 0
        text = sized.group(2) if sized is not None else text
        wanted, within, place = text.rpartition(" in ")
        start, length = None, 0
        if within and wanted.count('"') % 2 == 0:
            *where, extent = place.split() or [""]
            if not where:
                raise DebuggerError("a range is ADDRESS SIZE", hint="search 0xdead in p:0x1000 4096")
            text, start, length = wanted, self.address(" ".join(where)), self.number(extent)
        if not text.strip():
            raise DebuggerError("a pattern is wanted", hint='search "A| ", search 0xdead, search de ad')
        self.say(*look.search(self.session, look.pattern(text, size), start, length, width=self._cmd.width))

    @command("console", maybe("lines", "how many of the last (default: 20)"))
    def console(self, args: argparse.Namespace) -> None:
        """What the kernels said so far."""
        count = self.count(args, "lines") if text_of(args, "lines") else 20
        self.say(*look.console(self.session, count, width=self._cmd.width))

    @command("cmdline")
    def cmdline(self, _args: argparse.Namespace) -> None:
        """The command lines of the kernels, as they are in memory now."""
        self.say(*look.cmdline(self.session, width=self._cmd.width))

    @command("post-mortem")
    def post_mortem(self, _args: argparse.Namespace) -> None:
        """How the run ended: for a triple fault, each delivery and why it failed."""
        self.say(*look.post_mortem(self.session, width=self._cmd.width))

    @command(
        "who-wrote", some("address", "linear or p: physical, a size in bytes may follow; or $register"), moves=True
    )
    def who_wrote(self, args: argparse.Namespace) -> None:
        """The last store before here to a byte, by whom and where, with the list entry that sent it there (ww).

        For a register (``who-wrote $rbx``) the last instruction that changed it.
        """
        given = words(args, "address")
        if len(given) == 1 and given[0].startswith("$"):
            self.say(*look.who_changed(self.session, self.session.who_changed(given[0]), width=self._cmd.width))
            return
        size = 1
        if len(given) > 1 and given[-1].isdigit() and given[-2][-1:] not in "+-*/%&|^<>(~":
            size = self.number(given.pop())
        address = self.address(" ".join(given))
        self.say(*look.who_wrote(self.session, self.session.who_wrote(address, size), width=self._cmd.width))
