"""Source files and texts into images."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

from emu.assembler.assembly import Assembly
from emu.assembler.expression import Number
from emu.assembler.image import Image
from emu.assembler.layout import Layout
from emu.assembler.object_file import ELF_MAGIC, load_object
from emu.assembler.reader import Reader
from emu.assembler.source import Statement
from emu.assembler.symbols import SymbolTable
from emu.errors import ImageError


def assemble_text(
    text: str,
    name: str = "<text>",
    *,
    org: int = 0,
    bits: int | None = None,
    defines: Mapping[str, int] | None = None,
    include: Sequence[Path] = (),
) -> Image:
    """Assemble AT&T source ``text`` for address ``org``, starting in ``bits``-bit code (64 where None).

    ``defines`` are symbols set before the first line, ``include`` folders that ``.include`` may read from, besides
    the folder of the including file.

    Raises:
        AssemblyError: with file, line, column, the source line and where possible a hint.
    """
    layout = Layout(org)
    assembly = Assembly(name, layout, SymbolTable(layout), bits or 64)
    assembly.set_bits(assembly.bits)
    for symbol, value in (defines or {}).items():
        assembly.symbols.equates[symbol] = Number(value)
    reader = Reader(assembly, tuple(include))
    last: Statement | None = None
    for statement in reader.read(text, name):
        last = statement
        assembly.take(statement)
        if assembly.ended:
            break
    return assembly.finish(reader.texts, last)


def assemble(
    path: Path,
    *,
    org: int = 0,
    bits: int | None = None,
    defines: Mapping[str, int] | None = None,
    include: Sequence[Path] = (),
) -> Image:
    """Assemble the source file ``path``; see :func:`assemble_text`.

    Raises:
        AssemblyError: the source is wrong.
        ImageError: the file cannot be read as text.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    except UnicodeDecodeError as error:
        raise ImageError(
            "is neither an ELF object nor an assembly source",
            where=str(path),
            hint=f"no UTF-8 text at {error.start:#x}",
        ) from error
    return assemble_text(text, str(path), org=org, bits=bits, defines=defines, include=include)


def load_program(
    path: Path,
    *,
    org: int = 0,
    bits: int | None = None,
    defines: Mapping[str, int] | None = None,
    include: Sequence[Path] = (),
    section: str | None = None,
) -> Image:
    """The program in ``path``, whatever it is: an ELF object is loaded, anything else is assembled.

    Raises:
        AssemblyError: the source is wrong.
        ImageError: the file is missing, damaged, or neither an object nor text.
    """
    try:
        with path.open("rb") as file:
            magic = file.read(len(ELF_MAGIC))
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if magic == ELF_MAGIC:
        return load_object(path, org=org, section=section)
    return assemble(path, org=org, bits=bits, defines=defines, include=include)
