"""The symbols of a kernel that runs: from its own file, from the unstripped vmlinux beside it, or from a System.map."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

from emu.assembler import Image
from emu.errors import ImageError
from emu.kernelfile.kallsyms import read_kallsyms
from emu.kernelfile.stub_of import is_kernel, open_kernel

_MAP_LINE: Final = re.compile(rb"^([0-9a-f]{8}|[0-9a-f]{16}) \w ([^\s]+)$", re.MULTILINE)
_FIRST, _LAST = ("_text", "_stext", "startup_64", "startup_32"), ("_end", "__bss_stop", "_etext")
_LARGEST_MAP: Final = 64 << 20
_LOWEST_64: Final = 1 << 63
"""Where a 64-bit kernel's addresses begin; symbols below it are relative to a processor's own area."""


def kernel_symbols(path: Path) -> Image:
    """A program without bytes that has the symbols of the kernel in ``path``, at the linear addresses of its link.

    Raises ImageError where there are none to be found.
    """
    bits, names = _names(path)
    if not names:
        raise ImageError(
            "has no symbols of a kernel",
            where=str(path),
            hint="a vmlinuz with CONFIG_KALLSYMS, a vmlinux, a System.map",
        )
    start = _bound(names, _FIRST, min(names.values()))
    end = _bound(names, _LAST, max(names.values()))
    inside = {name: at for name, at in names.items() if start <= at <= end}
    return Image(bytes(end - start), start, bits, inside, (), path.name)


def _bound(names: Mapping[str, int], known: tuple[str, ...], otherwise: int) -> int:
    return next((names[name] for name in known if name in names), otherwise)


def _names(path: Path) -> tuple[int, dict[str, int]]:
    """The kernel's code size in bits, and the addresses by name."""
    if is_kernel(path):
        kernel = open_kernel(path).kernel
        bits, names = kernel.bits, dict(kernel.symbols) or read_kallsyms(kernel)
    else:
        bits, names = _system_map(path)
    lowest = _LOWEST_64 if bits == 64 and max(names.values(), default=0) >= _LOWEST_64 else 1
    return bits, {name: at for name, at in names.items() if at >= lowest}


def _system_map(path: Path) -> tuple[int, dict[str, int]]:
    try:
        if path.stat().st_size > _LARGEST_MAP:
            return 64, {}
        data = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    found = _MAP_LINE.findall(data)
    bits = 64 if found and len(found[0][0]) == 16 else 32
    return bits, {name.decode("ascii", "replace"): int(at, 16) for at, name in reversed(found)}
