"""Which file each stub of a run comes from."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from emu import resources
from emu.errors import AssemblyError, ImageError
from emu.journey import programs
from emu.kexec.arch import Arch
from emu.suite.claim_file import STUB_NAMES
from emu.suite.modes import Mode
from emu.units import PAGE_SIZE

_MARKS = {
    "relocate_new_kernel": programs.ENTRY_NAMES,
    "jump_entry": ("after_image_save",),
    "purgatory": ("purgatory_start",),
}


def built_in(arch: Arch) -> dict[str, Path]:
    """The house's own stubs."""
    folder = resources.asm_dir() / ("i386" if arch.bits == 32 else "x86_64")
    return {name: folder / f"{name}.S" for name in STUB_NAMES}


def stubs_for(mode: Mode, given: Sequence[Path]) -> tuple[dict[str, Path], frozenset[str]]:
    """The stubs for ``mode``, with the files ``given`` in the places that their symbols tell; and which those are.

    A file whose code is not of the mode's width takes no place.

    Raises:
        ImageError: a file is no stub, or cannot be read.
        AssemblyError: a file assembles for neither width.
    """
    arch = mode.arch
    if arch is None:
        return {}, frozenset()
    paths, replaced = built_in(arch), set()
    for path in given:
        name = _place_of(path, arch)
        if name:
            paths[name] = path
            replaced.add(name)
    return paths, frozenset(replaced)


def _place_of(path: Path, arch: Arch) -> str:
    """The stub that ``path`` is; empty where it is code of the other width."""
    try:
        symbols = programs.load(path, PAGE_SIZE, arch).symbols
    except (AssemblyError, ImageError):
        programs.load(path, PAGE_SIZE, Arch.X86_64 if arch.bits == 32 else Arch.I386)
        return ""
    for name, marks in _MARKS.items():
        if any(mark in symbols for mark in marks):
            return name
    wanted = ", ".join(mark for marks in _MARKS.values() for mark in marks)
    raise ImageError(f"is no stub: it has none of {wanted}", where=str(path), hint="export the entry as a symbol")
