"""``who-wrote`` in words: which instruction of whom stored this byte, and which list entry sent it there."""

from __future__ import annotations

from emu.debugger.address import Address
from emu.debugger.entry_walk import place_in_list
from emu.debugger.lines import WIDTH, table
from emu.debugger.places import image_at, instruction, owner_of, physical_symbol, place, with_symbols
from emu.debugger.session import ChangeRecord, Session, WriteRecord
from emu.debugger.visiting import peers, visiting
from emu.units import show_phys

_KERNELS = ("A", "B", "C", "")


def writer(session: Session, record: WriteRecord) -> str:
    """Who made the store: a device by name, else the program that the instruction belongs to."""
    if record.writer not in _KERNELS:
        return f"device {record.writer}"
    found = image_at(session, record.pc)
    loaded = session.loaded
    if session.recording.journey is None:
        return (
            "a program of its own" if session.machine.cpu.cpl == 3 else "the kernel" if found is None else found[0].name
        )
    if found is None:
        return f"unknown code in kernel {record.writer}'s phase" if record.writer else "unknown code"
    image = found[0]
    if image in session.kernels:
        return f"kernel {'A' if image is session.journey.kernel_a else 'B'}"
    if loaded is not None and image is loaded.second:
        return "relocate_new_kernel, second copy"
    if loaded is not None and image is loaded.stub:
        return "relocate_new_kernel"
    return {True: "purgatory", False: "jump entry code"}[loaded is not None and image is loaded.purgatory]


def who_wrote(session: Session, record: WriteRecord, width: int = WIDTH) -> list[str]:
    """A store for people: byte, instruction with file:line, position and iteration, list entry, a line to paste."""
    with visiting(session, record.at):
        insn = instruction(session, Address(record.pc))
        at = place(session, record.pc)
        text = with_symbols(session, insn) if insn is not None else ""
        transition, by = peers(session, session.transition()), writer(session, record)
        listed = place_in_list(session)
        owner = owner_of(session, record.address)
    name = physical_symbol(session, record.address)
    device = by.startswith("device ")
    goto = f"goto {record.position.n}" + (f".{record.position.k}" if record.position.k else "")
    counted = text.startswith("rep") and session.recording.journey is not None
    iteration = f", iteration {record.position.k + 1}" if counted else ""
    what = f"{record.old:02x} -> {record.new:02x}, a page of {owner}{f', {name}' if name else ''}"
    rows = [
        (show_phys(record.address), what),
        ("  by", f"{by}, in {transition}"),
        ("  while at" if device else "  at", str(at)),
        ("  instruction", text),
        ("  position", f"N {record.position}{iteration}"),
    ]
    if listed or record.list_entry:
        rows += [("  list" if not index else "", line) for index, line in enumerate(listed or [record.list_entry])]
    rows.append(("  look", goto))
    return table(rows, width)


def who_changed(session: Session, record: ChangeRecord, width: int = WIDTH) -> list[str]:
    """The last change of a register for people: values, instruction with file:line, position, a line to paste."""
    with visiting(session, record.at):
        insn = instruction(session, Address(record.pc))
        text = with_symbols(session, insn) if insn is not None else ""
        rows = [
            (record.register, f"{record.old:#x} -> {record.new:#x}"),
            ("  at", str(place(session, record.pc))),
            ("  instruction", text),
            ("  position", f"N {record.position} in {peers(session, session.transition())}"),
            ("  look", f"goto {record.position.n}"),
        ]
    return table(rows, width)
