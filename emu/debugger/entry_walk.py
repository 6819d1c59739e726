"""Where swap_pages is in the entry list, read from its registers."""

from __future__ import annotations

from dataclasses import dataclass

from emu.assembler import Image
from emu.debugger.address import Address
from emu.debugger.places import image_at
from emu.debugger.session import Session
from emu.debugger.visiting import image_now
from emu.kexec.entry_list import StepKind, WalkStep, walk
from emu.kexec.image import KexecImage
from emu.units import PAGE_MASK, PAGE_SIZE, show_phys

_REP = (b"\xf3\x48\xa5", b"\xf3\xa5", b"\xf3\xa4")
_NAMES = {StepKind.SOURCE: "SRC", StepKind.DESTINATION: "DST", StepKind.INDIRECTION: "IND", StepKind.DONE: "DONE"}
BAR = 20


@dataclass(frozen=True, slots=True)
class ListPosition:
    """Entry ``index`` (from 0) of ``steps`` is being worked on; ``moved`` pages were moved before it.

    ``stage`` says what a repeated move at the next instruction does, in words; empty elsewhere.
    """

    index: int
    steps: tuple[WalkStep, ...]
    moved: int
    pages: int
    stage: str = ""

    @property
    def step(self) -> WalkStep:
        """The entry."""
        return self.steps[self.index]


def entries(session: Session, image: KexecImage) -> tuple[WalkStep, ...]:
    """The whole list as it stands in memory now."""
    return tuple(walk(lambda at: session.machine.ram.read_int(at, image.word), image.head, image.word))


def stub_here(session: Session) -> Image | None:
    """The stub (first or second copy) that the next instruction belongs to."""
    found = image_at(session, session.pc)
    if found is None:
        return None
    return found[0] if any(found[0] is stub for stub in session.recording.stubs) else None


def _in_swap_pages(session: Session, stub: Image) -> bool:
    found = image_at(session, session.pc)
    if found is None:
        return False
    start = stub.symbols.get("swap_pages")
    if start is None:
        return True
    behind = ("exception_vectors", "saved_context", "kexec_va_control_page", "image_end")
    end = min((stub.symbols[name] for name in behind if stub.symbols.get(name, 0) > start), default=stub.end)
    return start <= found[1] < end


def position(session: Session) -> ListPosition | None:
    """Where the walk is; None unless control is in swap_pages of a stub and its registers tell."""
    image, stub = image_now(session), stub_here(session)
    if image is None or stub is None or not _in_swap_pages(session, stub):
        return None
    steps = entries(session, image)
    index = _by_cursor(session, steps, image)
    if index is None:
        index = _by_pages(session, steps)
    if index is None:
        return None
    sources = [at for at, step in enumerate(steps) if step.kind is StepKind.SOURCE]
    moved = sum(1 for at in sources if at < index)
    return ListPosition(index, steps, moved, len(sources), _stage(session, steps[index], image))


def _by_cursor(session: Session, steps: tuple[WalkStep, ...], image: KexecImage) -> int | None:
    """By %rbx, which our stubs and the kernel's keep at the entry after the one at hand."""
    registers, word = session.machine.cpu.registers(), image.word
    mask = (1 << 8 * word) - 1
    if image.head in (registers[name] & mask for name in ("rbx", "rcx", "rdi")):
        return 0
    following, entry = registers["rbx"] & mask, registers["rcx"] & mask
    if following == 0:
        return 0
    for index, step in enumerate(steps):
        if step.kind is StepKind.INDIRECTION and step.source == following and entry == step.entry & mask:
            return index
    return next((index for index, step in enumerate(steps) if step.at == following - word), None)


def _by_pages(session: Session, steps: tuple[WalkStep, ...]) -> int | None:
    """By the pages that the general registers point into: source and destination of one entry."""
    registers = session.machine.cpu.registers()
    pages = {registers[name] & ~PAGE_MASK for name in ("rsi", "rdi", "rdx", "rax", "r10", "r11")}
    return next(
        (
            index
            for index, step in enumerate(steps)
            if step.kind is StepKind.SOURCE and step.source in pages and step.destination in pages
        ),
        None,
    )


def _stage(session: Session, step: WalkStep, image: KexecImage) -> str:
    """What the repeated move at the next instruction copies, told from its first source and destination byte."""
    code = session.read(Address(session.pc), 3) or b""
    if step.kind is not StepKind.SOURCE or not code.startswith(_REP):
        return ""
    registers = session.machine.cpu.registers()
    size = 1 if code.startswith(b"\xf3\xa4") else image.word if code[1] == 0x48 or image.word == 4 else 4
    left = registers["rcx"] & (1 << 8 * image.word) - 1
    done = PAGE_SIZE - left * size
    mask = (1 << 8 * image.word) - 1
    names = {int(image.swap_page or -1): "swap page", int(step.destination): "destination", int(step.source): "source"}
    source = names.get(registers["rsi"] - done & mask & ~PAGE_MASK)
    target = names.get(registers["rdi"] - done & mask & ~PAGE_MASK)
    return f"{source} -> {target}, {done:,} of {PAGE_SIZE:,} bytes" if source and target else ""


def progress_bar(done: int, total: int, width: int = BAR) -> str:
    """``[#####.....]``."""
    full = width * done // total if total else width
    return f"[{'#' * full}{'.' * (width - full)}]"


def show_step(step: WalkStep) -> str:
    """An entry with its flag and what it does, in a line."""
    name = _NAMES.get(step.kind, step.kind.value)
    match step.kind:
        case StepKind.SOURCE:
            return f"{name:<4} {show_phys(step.source)} <-> {show_phys(step.destination)}"
        case StepKind.DESTINATION:
            return f"{name:<4} cursor to {show_phys(step.destination)}"
        case StepKind.INDIRECTION:
            return f"{name:<4} entries go on in {show_phys(step.source)}"
        case StepKind.DONE:
            return f"{name:<4} the end"
        case _:
            return f"{name} {step.entry:#x}"


def place_in_list(session: Session) -> list[str]:
    """Where the walk is, for panes: entry, pages, progress; empty outside swap_pages."""
    at = position(session)
    if at is None:
        return []
    lines = [
        f"entry {at.index + 1:,}/{len(at.steps):,}  {show_step(at.step)}",
        f"{progress_bar(at.moved, at.pages)} {at.moved:,} of {at.pages:,} pages moved",
    ]
    return [*lines, at.stage] if at.stage else lines
