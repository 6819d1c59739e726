"""Commands that change the machine by hand: each begins a new branch of history, and ``undo`` goes back."""

from __future__ import annotations

import argparse
import re

from emu.assembler import assemble_text
from emu.debugger.examine import UNITS
from emu.debugger.repl_command import Commands, command, maybe, one, rest, some, text_of, words
from emu.errors import DebuggerError
from emu.kexec.jump_page import FIELDS

_ASSIGNMENT = re.compile(r"(.+?)\s*=\s*([^=].*)", re.DOTALL)
_REGISTER = re.compile(r"\$[A-Za-z][\w.]*")
_SYMBOL = re.compile(r"(?<![\w.%$])[A-Za-z_.][\w.]*")
_SIZE = re.compile(r"(.*)/([bhwg1248])\s*", re.DOTALL)


def _assignment(text: str, usage: str) -> tuple[str, str]:
    match = _ASSIGNMENT.fullmatch(text.strip())
    if match is None:
        raise DebuggerError("nothing is assigned", hint=usage)
    return match.group(1).strip(), match.group(2).strip()


class Changing(Commands):
    """Change the machine: each change begins a new branch of history, and undo goes back."""

    DEFAULT_CATEGORY = "Change"

    @command(
        "set", rest("assignment", "$REGISTER = EXPR, or mem ADDRESS = EXPR, with /b /h /w /g behind it for its size")
    )
    def set(self, args: argparse.Namespace) -> None:
        """Give a register or memory a value: set $rax = 1; set mem p:0x1000 = 0x90/b."""
        given = words(args, "assignment")
        if given[:1] in (["mem"], ["memory"]):
            self._memory(" ".join(given[1:]))
            return
        if given[:1] == ["var"]:
            given = given[1:]
        name, value = _assignment(" ".join(given), "set $rax = 1, or set mem ADDRESS = VALUE/b")
        if not _REGISTER.fullmatch(name):
            raise DebuggerError(f"{name} cannot be set", hint="set $rax = 1, or set mem ADDRESS = VALUE/b")
        self._cmd.stopped(self.session.set_register(name, self.number(value)))

    def _memory(self, text: str) -> None:
        place, value_text = _assignment(text, "set mem ADDRESS = VALUE/b")
        sized = _SIZE.fullmatch(value_text)
        size = self.session.machine.cpu.bits // 8
        if sized is not None:
            value_text, letter = sized.groups()
            size = UNITS.get(letter) or int(letter)
        value = self.number(value_text)
        if not -(1 << 8 * size - 1) <= value < 1 << 8 * size:
            raise DebuggerError(f"{value:#x} does not fit {size} bytes", hint="set mem ADDRESS = VALUE/g has 8")
        data = (value & (1 << 8 * size) - 1).to_bytes(size, "little")
        self._cmd.stopped(self.session.write_memory(self.address(place), data))

    @command("asm", one("address", "where", complete="symbols"), some("instruction", '"in quotes"', complete=""))
    def asm(self, args: argparse.Namespace) -> None:
        """Assemble instructions over what is at an address, in the mode of now: asm $rip "cld; nop"."""
        address = self.address(text_of(args, "address"))
        text = text_of(args, "instruction").replace(";", "\n") + "\n"
        named = {word: self._symbol(word) for word in _SYMBOL.findall(text)}
        defines = {word: value for word, value in named.items() if value is not None}
        code = assemble_text(text, org=address.value, bits=self.session.machine.cpu.bits, defines=defines).code
        if not code:
            raise DebuggerError("there is no instruction to write")
        self._cmd.stopped(self.session.write_memory(address, code))

    def _symbol(self, name: str) -> int | None:
        return self.session.symbols.address_of(name, self.session.pc)

    @command(
        "inject",
        one("kind", "irq, line, nmi or fault", choices=("irq", "line", "nmi", "fault")),
        maybe("vector", "of the interrupt or fault; the line, 0 to 7, of a device that asks for one"),
        rest("code", "error code of the fault"),
    )
    def inject(self, args: argparse.Namespace) -> None:
        """Let an interrupt, an NMI or an exception arrive here."""
        kind = text_of(args, "kind")
        if kind == "nmi":
            self._cmd.stopped(self.session.inject_nmi())
            return
        if kind not in ("irq", "line", "fault"):
            raise DebuggerError(f"{kind} cannot be injected", hint="irq VECTOR, line N, nmi, fault VECTOR [CODE]")
        if not text_of(args, "vector"):
            raise DebuggerError("a vector is wanted", hint=f"inject {kind} VECTOR")
        vector = self.number(text_of(args, "vector"))
        most = 255 if kind == "irq" else 31
        if kind != "line" and not 0 <= vector <= most:
            raise DebuggerError(f"vector {vector} is out of range", hint=f"0 to {most}")
        if kind in ("irq", "line"):
            inject = self.session.inject_interrupt if kind == "irq" else self.session.ask_for_interrupt
            self._cmd.stopped(inject(vector))
            return
        code = self.number(text_of(args, "code")) if text_of(args, "code") else 0
        if not 0 <= code <= 0xFFFF:
            raise DebuggerError(f"{code:#x} is no error code", hint="16 bits")
        self._cmd.stopped(self.session.inject_fault(vector, code))

    @command(
        "poke",
        one("field", "jumpbuf.FIELD", choices=[f"jumpbuf.{field.name}" for field in FIELDS]),
        some("value", "its new value; = may stand before it"),
    )
    def poke(self, args: argparse.Namespace) -> None:
        """Set a field of the jump page; the checksum is made right, unless it is the field."""
        room, dot, field = text_of(args, "field").partition(".")
        if room != "jumpbuf" or not dot:
            raise DebuggerError("what is poked is a field of the jump page", hint="poke jumpbuf.resume_slot 0")
        value = text_of(args, "value").removeprefix("=")
        self._cmd.stopped(self.session.poke_jump_page(field, self.number(value)))
