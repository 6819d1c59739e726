"""The programs of a scene: kernels, stubs and purgatory, assembled or loaded, each with its symbols and lines."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from emu import resources
from emu.assembler import Image, load_program
from emu.errors import ImageError, JourneyError
from emu.journey.scene import Scene
from emu.kernelfile import KernelStub, find_stub, is_kernel
from emu.kexec.arch import Arch
from emu.units import PAGE_SIZE

ENTRY_NAMES = ("relocate_new_kernel", "relocate_kernel")


def _folder(arch: Arch) -> str:
    return "i386" if arch.bits == 32 else "x86_64"


def _arch_defines(arch: Arch) -> dict[str, int]:
    return {"PAE": int(arch.is_pae)} if arch.bits == 32 else {"LA57": int(arch.is_la57)}


@lru_cache(maxsize=64)
def _load(path: Path, org: int, bits: int, defines: tuple[tuple[str, int], ...], stamp: int) -> Image:
    del stamp  # part of the key: a source that changed is assembled again
    if is_kernel(path):
        image = find_stub(path).image(org)
    else:
        include = [resources.asm_dir() / "include", resources.kernels_dir()]
        image = load_program(path, org=org, bits=bits, defines=dict(defines), include=include)
    if image.bits != bits:
        raise ImageError(f"is {image.bits}-bit code; the architecture is {bits}-bit", where=str(path))
    return image


def load(path: Path, org: int, arch: Arch, defines: Mapping[str, int] | None = None) -> Image:
    """A program for ``arch`` at physical ``org``; raises AssemblyError or ImageError."""
    if not path.is_file():
        raise ImageError("no such file", where=str(path))
    merged = _arch_defines(arch) | dict(defines or {})
    return _load(path, org, arch.bits, tuple(sorted(merged.items())), path.stat().st_mtime_ns)


@dataclass(frozen=True, slots=True)
class StubFiles:
    """Where each stub of a scene comes from."""

    relocate: Path
    jump_entry: Path
    purgatory: Path
    replaced: frozenset[str] = frozenset()


def built_in_stubs(arch: Arch) -> StubFiles:
    """The stubs that come with kjump."""
    folder = resources.asm_dir() / _folder(arch)
    return StubFiles(folder / "relocate_new_kernel.S", folder / "jump_entry.S", folder / "purgatory.S")


def stub_files(scene: Scene) -> StubFiles:
    """The built-in stubs with those of ``--stub`` put in their places, which their symbols tell."""
    own = built_in_stubs(scene.arch)
    files = {"relocate": own.relocate, "jump_entry": own.jump_entry, "purgatory": own.purgatory}
    replaced = set()
    for path in scene.stubs:
        symbols = load(path, PAGE_SIZE, scene.arch).symbols
        if any(name in symbols for name in ENTRY_NAMES):
            place = "relocate"
        elif "after_image_save" in symbols:
            place = "jump_entry"
        elif "purgatory_start" in symbols:
            place = "purgatory"
        else:
            raise ImageError(
                "is no stub: it has none of relocate_new_kernel, relocate_kernel, after_image_save, purgatory_start",
                where=str(path),
                hint="export the entry as a symbol",
            )
        files[place] = path
        replaced.add(place)
    return StubFiles(files["relocate"], files["jump_entry"], files["purgatory"], frozenset(replaced))


def linux_stub(scene: Scene) -> KernelStub | None:
    """Linux's own relocate_kernel, where ``--stub`` names a kernel; raises ImageError for one that cannot be used."""
    return next((find_stub(path) for path in scene.stubs if is_kernel(path)), None)


def relocate_entry(stub: Image) -> int:
    """The address of relocate_new_kernel in ``stub``."""
    for name in ENTRY_NAMES:
        if name in stub.symbols:
            return stub.symbols[name]
    raise ImageError("has no relocate_new_kernel", where=stub.name)


@lru_cache(maxsize=1)
def _hostile_numbers(path: Path) -> dict[str, int]:
    numbers = {}
    for line in path.read_text(encoding="utf-8").splitlines():
        if line.startswith(".set HOSTILE_"):
            name, _, rest = line.removeprefix(".set HOSTILE_").partition(",")
            numbers[name.lower()] = int(rest.split("#")[0], 0)
    return numbers


def hostile_names() -> dict[str, int]:
    """The hostile B's by name, from kernels/hostile.inc."""
    return _hostile_numbers(resources.kernels_dir() / "hostile.inc")


def kernel(scene: Scene, letter: str) -> Image:
    """Kernel ``letter`` of the scene, at its link address.

    A and B are linked alike, as any two builds of a kernel are, unless B is linked specially for a reserved target
    area.  C is linked for the target area, or where the journey says.
    """
    by_width = scene.journey.kernels.get(letter, {})
    name = by_width.get(str(scene.arch.bits))
    if name is None:
        where = str(scene.journey.path)
        raise JourneyError(f"the journey has no {scene.arch.bits}-bit kernel {letter.upper()}", where=where)
    beside = scene.journey.path.parent / name
    path = beside if beside.is_file() else resources.kernels_dir() / name
    defines: dict[str, int] = dict(scene.defines)
    if letter == "b":
        names = hostile_names()
        if scene.hostile and scene.hostile not in names:
            raise JourneyError(f"no hostile B is called {scene.hostile}", hint=f"one of {', '.join(names)}")
        defines["HOSTILE"] = names.get(scene.hostile, 0)
        if linux_stub(scene) is not None:
            defines |= {"PEER_GDT": int(not scene.own_gdt), "PAE_BACK": int(scene.pae_back)}
    return load(path, scene.link_address(letter), scene.arch, defines)
