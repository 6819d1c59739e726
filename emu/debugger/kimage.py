"""The loaded image and its entry list, and the jump page: what A and B tell each other."""

from __future__ import annotations

from itertools import pairwise

from emu.debugger.entry_walk import entries, position, progress_bar, show_step
from emu.debugger.lines import WIDTH, table, wrap_all
from emu.debugger.session import Session
from emu.debugger.visiting import image_now, last_begin, visiting
from emu.errors import DebuggerError
from emu.kexec.entry_list import StepKind, WalkStep
from emu.kexec.image import KexecImage
from emu.kexec.jump_page import describe, diff
from emu.units import PAGE_SIZE, show_phys

_AROUND = 4


def _loaded(session: Session) -> KexecImage:
    image = image_now(session)
    if image is None:
        raise DebuggerError("nothing is loaded yet", hint="goto transition suspend")
    return image


# ---- the entry list --------------------------------------------------------------------------------------------


def kimage(
    session: Session,
    start: int | None = None,
    count: int | None = None,
    *,
    ranges: bool = False,
    paging: bool = False,
    width: int = WIDTH,
) -> list[str]:
    """``kimage``: the image, then its entry list around the one that the walk is at (``>``), or from entry ``start``.

    ``ranges`` joins what moves alike; ``paging`` lists the pages that the image owns, tables included.  Raises
    DebuggerError before the load.
    """
    image = _loaded(session)
    steps = entries(session, image)
    lines = _head(image, steps)
    if paging:
        return wrap_all([*lines, *_owned(image)], width)
    if ranges:
        return wrap_all([*lines, *_ranges(steps)], width)
    at = position(session)
    if at is not None:
        lines.append(f"walk   {progress_bar(at.moved, at.pages)} {at.moved:,} of {at.pages:,} pages moved")
        lines += [f"       {at.stage}"] if at.stage else []
    here = at.index if at is not None else None
    first = start - 1 if start is not None else max((here or 0) - _AROUND, 0)
    if start is not None and not 1 <= start <= len(steps):
        raise DebuggerError(f"the list has no entry {start:,}", hint=f"1 to {len(steps):,}")
    behind = min(first + max(count if count is not None else 2 * _AROUND + 1, 1), len(steps))
    lines += ["..."] if first else []
    for index in range(first, behind):
        lines.append(_entry_line(index, steps[index], current=index == here))
    lines += [f"... {len(steps) - behind:,} more"] if behind < len(steps) else []
    return wrap_all(lines, width)


def _entry_line(index: int, step: WalkStep, *, current: bool) -> str:
    at = "head" if step.at is None else show_phys(step.at)
    return f"{'>' if current else ' '} {index + 1:>6,}  {at:<12} {step.entry:#012x}  {show_step(step)}"


def _head(image: KexecImage, steps: tuple[WalkStep, ...]) -> list[str]:
    pages = sum(1 for step in steps if step.kind is StepKind.SOURCE)
    links = sum(1 for step in steps if step.kind is StepKind.INDIRECTION)
    swap = show_phys(image.swap_page) if image.swap_page is not None else "none"
    lines = [
        f"image  head {image.head:#x}  start {show_phys(image.entry)}  flags {image.flags.name or 0}",
        f"       control page {show_phys(image.control_page)}  swap page {swap}  tables {show_phys(image.table_root)}",
        f"list   {len(steps):,} entries, {pages:,} pages, {links} list pages, ends with {steps[-1].kind.value}",
    ]
    if image.jump is not None:
        jump = image.jump
        lines.append(
            f"kjump  jump page {show_phys(jump.jump_page)}  entry code {show_phys(jump.entry_page)}  "
            f"second stub {show_phys(jump.relocate_copy)}"
        )
    return lines


def _ranges(steps: tuple[WalkStep, ...]) -> list[str]:
    """Runs of pages whose destinations follow each other and whose sources do so too, up or down."""
    moves = [step for step in steps if step.kind is StepKind.SOURCE]
    if not moves:
        return ["no page moves"]
    runs: list[list[WalkStep]] = [[moves[0]]]
    direction = 0
    for before, step in pairwise(moves):
        stride = int(step.source) - int(before.source)
        follows = step.destination == before.destination + PAGE_SIZE and abs(stride) == PAGE_SIZE
        if follows and (len(runs[-1]) == 1 or stride == direction):
            runs[-1].append(step)
            direction = stride
        else:
            runs.append([step])
    return [_run_line(run) for run in runs]


def _run_line(run: list[WalkStep]) -> str:
    first, last = run[0], run[-1]
    way = "up" if last.source >= first.source else "down"
    if len(run) == 1:
        return f"{show_phys(first.destination)} <-> {show_phys(first.source)}"
    end = show_phys(last.destination + PAGE_SIZE - 1)
    return f"{show_phys(first.destination)}..{end} <-> {show_phys(first.source)} {way}, {len(run):,} pages"


def _owned(image: KexecImage) -> list[str]:
    rows = []
    for owner, pfns in sorted(image.owners.items(), key=lambda item: item[0].value):
        shown = " ".join(show_phys(pfn * PAGE_SIZE) for pfn in pfns[:4])
        rows.append((str(owner.value), f"{len(pfns):,}", shown + (" ..." if len(pfns) > 4 else "")))
    return table(rows, right=frozenset({1}))


def entries_naming(session: Session, physical: int) -> list[str]:
    """The entries that name the page of ``physical``, one a line; none before the load."""
    image = image_now(session)
    if image is None:
        return []
    page = physical & -PAGE_SIZE
    lines = []
    for index, step in enumerate(entries(session, image)):
        if step.kind is StepKind.SOURCE and page in (step.source, step.destination):
            side = "destination" if page == step.destination else "source"
            lines.append(f"{side} of list entry {index + 1:,}: {show_step(step)}")
    return lines


# ---- the jump page ---------------------------------------------------------------------------------------------


def jumpbuf(session: Session, width: int = WIDTH) -> list[str]:
    """``jumpbuf``: the fields of the jump page, what they mean, and what the present transition changed.

    Raises DebuggerError before the load, and where the hand-off has no jump page.
    """
    image = _loaded(session)
    if image.jump is None or not image.jump.jump_page:
        raise DebuggerError("this scene has no jump page", hint="its hand-off is another")
    at = int(image.jump.jump_page)
    now = session.machine.ram.read(at, PAGE_SIZE)
    lines = [f"jump page {show_phys(at)}, jump_buf_pfn={at >> 12:#x}"]
    lines += table([(name, value, meaning) for name, value, meaning in describe(now)], width)
    mark = last_begin(session)
    if mark is None or mark.name == "load":
        return lines
    with visiting(session, mark.at):
        before = session.machine.ram.read(at, PAGE_SIZE)
    changes = diff(before, now)
    begin = f"{mark.name} began (N {mark.n:,})"
    lines.append(f"changed since {begin}:" if changes else f"unchanged since {begin}")
    return lines + table([(f"  {one.field}", f"{one.before} -> {one.after}") for one in changes], width)
