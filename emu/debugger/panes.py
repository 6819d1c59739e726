"""What a stop shows: where, code, registers, control registers, entry list, memory operands, stack."""

from __future__ import annotations

from collections.abc import Sequence

from rich.text import Text

from emu.assembler.lengths import memory_operands
from emu.debugger.address import Address
from emu.debugger.backtrace import stack_words
from emu.debugger.entry_walk import place_in_list
from emu.debugger.lines import WIDTH, shorten
from emu.debugger.places import (
    image_at,
    instruction,
    is_as_assembled,
    next_instruction,
    owner_of,
    page_of,
    place,
    short,
    source_around,
    symbol,
    with_symbols,
)
from emu.debugger.postmortem import how_it_ended
from emu.debugger.registers import changed_names, general_cells
from emu.debugger.session import Session, Stopped
from emu.debugger.visiting import peers
from emu.machine.cpustate import DS
from emu.units import PAGE_SIZE, show_phys
from emu.x86.bits import Cr0, Cr4, Efer, Eflags, decode
from emu.x86.paging import Access

TWO_COLUMNS = 100
"""Terminals of at least so many columns show code and registers side by side."""
_LEFT = 56
_STACK_WORDS = 4
_COMMANDS = frozenset({"step", "goto", "reverse-step", "iter", "finish", "reached", "reverse-continue", "next", ""})


# ---- head ------------------------------------------------------------------------------------------------------


def head(session: Session, why: str = "", width: int = WIDTH) -> list[Text]:
    """The rule above the panes: transition, position, mode, privilege, flags, and what the move stopped for."""
    cpu = session.machine.cpu
    flags = cpu.rflags
    direction = bool(flags & Eflags.DF)
    text = Text("-- ", style="dim")
    text.append(peers(session, session.transition()), style="bold")
    text.append(f"  N {session.position}", style="bold cyan")
    text.append(f"  {cpu.mode()} CPL{cpu.cpl} IF={int(bool(flags & Eflags.IF))} ")
    text.append(f"DF={int(direction)}{'!' if direction else ''}", style="bold red" if direction else "")
    stop = Text(f"stop: {why}", style="yellow") if why else Text("")
    if why and len(text) + len(stop) + 3 <= width:
        text.append("  ")
        text.append_text(stop)
        why = ""
    text.append(" " + "-" * max(width - len(text) - 1, 2), style="dim")
    return [text, Text(shorten(f"   stop: {why}", width), style="yellow")] if why else [text]


# ---- code ------------------------------------------------------------------------------------------------------


def code(session: Session, width: int = WIDTH, rows_wanted: int = 6) -> list[Text]:
    """Source lines around the next instruction, or instructions where there is no source."""
    pc = session.pc
    at = place(session, pc)
    title = f"{short(at).split(':')[0]}  " if at.file else ""
    lines = [Text(shorten(f" {title}{at.symbol}  {page_of(session, pc)}", width), style="dim")]
    before = max((rows_wanted - 1) // 3 + 1, 2)
    rows = source_around(session, pc, before, rows_wanted - 1 - before)
    if not rows:
        if at.file and not is_as_assembled(session, pc):
            lines.append(Text(shorten(" memory is not what its source was assembled to", width), style="red"))
        return lines + _from_memory(session, width, rows_wanted)
    digits = max(len(str(row[0])) for row in rows)
    for number, address, source, here in rows:
        if not here:
            lines.append(Text(shorten(f"  {number:>{digits}} {address:x}  {_squeezed(source)}", width)))
            continue
        note = _repeat_note(session)
        room = width - len(note) - 2 if note else width
        text = Text(shorten(f"> {number:>{digits}} {address:x}  {_squeezed(source)}", room), style="bold green")
        text.append(f"  {note}" if note else "", style="yellow")
        lines.append(text)
    return lines


def _squeezed(source: str) -> str:
    """A source line with its comment two columns behind its code."""
    text, hash_sign, comment = source.strip().partition("#")
    return f"{' '.join(text.split())}  # {comment.strip()}" if hash_sign else " ".join(text.split())


def _from_memory(session: Session, width: int, rows: int) -> list[Text]:
    lines = []
    at = Address(session.pc)
    for index in range(rows):
        insn = instruction(session, at)
        if insn is None:
            lines.append(Text(f"{'>' if not index else ' '} {at.value:x}  cannot be fetched", style="red"))
            break
        note = _repeat_note(session) if not index else ""
        text = f"{'>' if not index else ' '} {insn.address:x}  {with_symbols(session, insn)}  {note}".rstrip()
        lines.append(Text(shorten(text, width), style="" if index else "bold green"))
        at = next_instruction(session, at)
    return lines


def _repeat_note(session: Session) -> str:
    """``# iteration 1 of 512`` at a repeated instruction."""
    insn = instruction(session, Address(session.pc))
    if insn is None or not insn.text.startswith("rep"):
        return ""
    left = session.machine.cpu.registers()["rcx"] & (1 << session.machine.cpu.bits) - 1
    done = session.position.k
    return f"# iteration {done + 1} of {done + left:,}" if left else "# no iteration left"


# ---- registers -------------------------------------------------------------------------------------------------


def registers(session: Session, width: int = WIDTH) -> list[Text]:
    """General registers, changed ones bold with ``*``, then the control registers decoded."""
    cells = general_cells(session)
    size = max(len(text) for text, _ in cells) + 2
    across = max((width - 1) // size, 1)
    lines = []
    for start in range(0, len(cells), across):
        line = Text(" ")
        for text, moved in cells[start : start + across]:
            line.append(text.ljust(size), style="bold yellow" if moved else "")
        line.rstrip()
        lines.append(line)
    return lines + control(session, width)


def control(session: Session, width: int = WIDTH) -> list[Text]:
    """CR0, CR3, CR4 and EFER with the bits that are set by name, in as few lines as they fit; CR2 when it changed."""
    now, moved = session.machine.cpu.registers(), changed_names(session)
    parts = [f"cr3 {now['cr3']:x}{' *' if 'cr3' in moved else ''}"]
    if "cr2" in moved:
        parts.append(f"cr2 {now['cr2']:x} *")
    for name, bits in (("cr0", Cr0), ("cr4", Cr4), ("efer", Efer)):
        parts.append(f"{name} {now[name]:x}{' *' if name in moved else ''} {decode(now[name], bits)}".rstrip())
    lines, line = [], Text("")
    for part in parts:
        style = "bold yellow" if " *" in part else ""
        if len(line) and len(line) + 2 + len(part) > width:
            lines.append(line)
            line = Text("")
        line.append(f"{'  ' if len(line) else ' '}")
        line.append(part, style=style)
    return [_cut(one, width) for one in [*lines, line]]


# ---- list, memory, stack ---------------------------------------------------------------------------------------


def entry_list(session: Session, width: int = WIDTH) -> list[Text]:
    """Where swap_pages is in the list; nothing elsewhere."""
    return [
        Text(shorten(f" {'list' if not index else '':<7}{line}", width), style="cyan" if index != 1 else "green")
        for index, line in enumerate(place_in_list(session))
    ]


def memory(session: Session, width: int = WIDTH) -> list[Text]:
    """What the next instruction reads and writes: linear, physical, owner; and whether a store would fault."""
    cpu = session.machine.cpu
    raw = session.read(Address(session.pc), 15) or b""
    lines: list[Text] = []
    base = 0 if cpu.bits == 64 else cpu.segment(DS).base
    for offset, size, kind in memory_operands(raw, cpu.bits, cpu.engine.gpr, session.pc):
        linear = offset + base & (1 << 64 if cpu.bits == 64 else 1 << 32) - 1
        lines.append(_operand(session, linear, size, kind, width, first=not lines))
    return lines


def _operand(session: Session, linear: int, size: int, kind: str, width: int, *, first: bool) -> Text:
    cpu = session.machine.cpu
    walked = cpu.walk(linear, Access(write=kind == "write", user=cpu.cpl == 3))
    label = f" {'memory' if first else '':<7}{kind:<5} {linear:#x}"
    if walked.physical is None:
        reason = getattr(walked.fault, "reason", "not mapped")
        return Text(shorten(f"{label}  faults: {reason}", width), style="bold red")
    data = session.read(Address(linear), size) or b""
    value = int.from_bytes(data, "little")
    name = symbol(session, linear)
    owner = owner_of(session, walked.physical)
    text = f"{label}{'' if walked.physical == linear else f' = {show_phys(walked.physical)}'}  {owner}"
    text += f"  {value:#x}" if size <= 8 else ""
    return Text(shorten(text + (f"  {name}" if name else ""), width))


def stack(session: Session, width: int = WIDTH) -> list[Text]:
    """The top words of the stack, with symbols."""
    lines = []
    words = stack_words(session, _STACK_WORDS)
    if not words:
        return [Text(" stack  not mapped", style="red")]
    for index, (linear, word) in enumerate(words):
        name = symbol(session, word) if word else ""
        label = "stack" if not index else ""
        top = "  (page boundary)" if not index and linear % PAGE_SIZE == 0 else ""
        lines.append(Text(shorten(f" {label:<7}{linear:x}: {word:x}{f' {name}' if name else ''}{top}", width)))
    return lines


# ---- together --------------------------------------------------------------------------------------------------


def _cut(text: Text, width: int) -> Text:
    if len(text) > width:
        text.truncate(width - 2)
        text.append("..")
    return text


def beside(left: Sequence[Text], right: Sequence[Text], at: int) -> list[Text]:
    """Two blocks side by side, the right one behind a bar at column ``at``."""
    lines = []
    for index in range(max(len(left), len(right))):
        line = left[index].copy() if index < len(left) else Text("")
        line.append(" " * max(at - len(line), 0))
        line.append("|", style="dim")
        if index < len(right):
            line.append_text(right[index])
        line.rstrip()
        lines.append(line)
    return lines


def stop_pane(session: Session, stopped: Stopped | None = None, width: int = WIDTH) -> list[Text]:
    """Everything that a stop shows, in lines of at most ``width`` columns: two columns from 100 on, one below."""
    lines = head(session, _reason(session, stopped), width)
    below = [*entry_list(session, width), *memory(session, width), *stack(session, width)]
    if width < TWO_COLUMNS:
        return [*lines, *code(session, width), *registers(session, width), *below]
    left = max(_LEFT, width - 52)
    right = registers(session, width - left - 2)
    return [*lines, *beside(code(session, left - 1, max(len(right) - 1, 6)), right, left), *below]


def _reason(session: Session, stopped: Stopped | None) -> str:
    """Why a move ended, where that says more than which command was typed."""
    if stopped is None or (not stopped.hits and stopped.why in _COMMANDS):
        return ""
    if stopped.ended and session.timeline.now >= session.timeline.end:
        return f"end of the recording: {how_it_ended(session)}"
    return stopped.why


def brief(session: Session, width: int = WIDTH) -> Text:
    """One line for a stop, where panes are off: position, place, instruction."""
    insn = instruction(session, Address(session.pc))
    at = place(session, session.pc)
    known = image_at(session, session.pc) is not None
    text = with_symbols(session, insn) if insn is not None else "cannot be fetched"
    return Text(shorten(f"N {session.position}  {short(at) if known else ''} {at.symbol}:  {text}", width))
