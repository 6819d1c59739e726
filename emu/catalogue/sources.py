"""Changed copies of stubs and kernels in a folder of their own."""

from __future__ import annotations

import shutil
from collections.abc import Iterable
from pathlib import Path

from emu import resources
from emu.catalogue.entries import Patch
from emu.errors import KjumpError
from emu.trials.stubs import StubSet


def replaced(text: str, patch: Patch) -> str:
    """``text`` with the patch applied; raises KjumpError unless its old text occurs exactly once."""
    count = text.count(patch.old)
    if count != 1:
        raise KjumpError(
            f"the text to replace occurs {count} times: {patch.old.splitlines()[0].strip()!r} ...",
            where=patch.file,
            hint="the source has changed: bring the catalogue up to date",
        )
    return text.replace(patch.old, patch.new)


def patched_stubs(patches: Iterable[Patch], folder: Path) -> tuple[Path, ...]:
    """The stubs that ``patches`` change, as files in ``folder``."""
    texts: dict[str, str] = {}
    for patch in patches:
        if patch.file.startswith("asm/"):
            name = patch.file.removeprefix("asm/")
            texts[name] = replaced(texts.get(name) or _read(resources.asm_dir() / name), patch)
    paths = []
    for name, text in texts.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")
        paths.append(path)
    return tuple(paths)


def patched_kernels(patches: Iterable[Patch], folder: Path) -> Path | None:
    """A copy of kernels/ with ``patches`` applied, or None where they change no kernel."""
    wanted = [patch for patch in patches if patch.file.startswith("kernels/")]
    if not wanted:
        return None
    copy = folder / "kernels"
    shutil.copytree(resources.kernels_dir(), copy)
    for patch in wanted:
        path = folder / patch.file
        path.write_text(replaced(_read(path), patch), encoding="utf-8")
    return copy


def patched_set(folder: str, patches: Iterable[Patch]) -> StubSet:
    """The stubs of ``folder`` (``i386`` or ``x86_64``) with ``patches``, for trials."""
    stubs = StubSet(folder)
    for patch in patches:
        _, where, file = patch.file.split("/")
        if where == folder:
            name = file.removesuffix(".S")
            stubs = stubs.with_text(name, replaced(stubs.source(name), patch))
    return stubs


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise KjumpError(f"cannot be read: {error.strerror}", where=str(path)) from error
