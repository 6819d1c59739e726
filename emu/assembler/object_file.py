"""A relocatable object from a compiler or assembler, laid out flat: sections, relocations, symbols, lines.

Sources: System V ABI, "Object Files"; the x86 supplements for relocations.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path

from elftools.elf.elffile import ELFFile
from elftools.elf.relocation import RelocationSection
from elftools.elf.sections import Section, Symbol, SymbolTableSection

from emu.assembler.image import Image
from emu.assembler.layout import MAX_SIZE
from emu.assembler.object_lines import ALLOCATED, line_map, sources_near
from emu.assembler.relocations import Relocation, relocation_type
from emu.errors import ImageError

ELF_MAGIC = b"\x7fELF"
_BITS = {"EM_386": 32, "EM_X86_64": 64}
_KERNEL_STUB = (".text..relocate_kernel", ".data..relocate_kernel")
"""The sections of a kernel's own stub since Linux 6.14: code, then data, one control page together."""
_FAMILIES = (".text", ".rodata", ".data", ".bss")


@dataclass(frozen=True, slots=True)
class _Placed:
    """Section ``index`` of the object, at linear ``address`` of the flat image."""

    index: int
    name: str
    address: int
    data: bytes


def load_object(
    path: Path, *, org: int = 0, section: str | None = None, externals: Mapping[str, int] | None = None
) -> Image:
    """The allocated sections of the object ``path``, laid out from address ``org`` and relocated.

    Code comes first, then read-only data, data, bss; of a kernel's relocate_kernel_64.o its two own sections.
    ``section`` takes that one section only, ``externals`` are linear addresses of symbols that it may leave undefined.

    Raises:
        ImageError: not an ELF object, damaged, for another machine, or not complete in itself.
    """
    try:
        content = path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    if not content.startswith(ELF_MAGIC):
        raise ImageError("is not an ELF file", where=str(path))
    try:
        return _load(content, path, org, section, externals or {})
    except ImageError:
        raise
    except RecursionError as error:
        raise ImageError("is damaged: its structures refer to themselves", where=str(path)) from error
    except Exception as error:  # pyelftools raises whatever its parser runs into
        what = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise ImageError(f"is damaged or truncated: {what}", where=str(path)) from error


def _load(content: bytes, path: Path, org: int, section: str | None, externals: Mapping[str, int]) -> Image:
    elf = ELFFile(BytesIO(content))
    bits = _check_kind(elf, str(path))
    placed = _place(elf, str(path), org, section)
    end = max(one.address + len(one.data) for one in placed)
    code = bytearray(end - org)
    for one in placed:
        code[one.address - org : one.address - org + len(one.data)] = one.data
    for relocation in _relocations(elf, placed, bits, org, path=str(path), externals=externals):
        relocation.apply(code, org)
    symbols, constants = _symbols(elf, placed)
    lines = line_map(content, {one.index: (one.address, len(one.data)) for one in placed}, bits)
    return Image(
        code=bytes(code),
        org=org,
        bits=bits,
        symbols=symbols,
        lines=lines,
        name=str(path),
        constants=constants,
        sources=sources_near(path, {line.file for line in lines}),
    )


def _check_kind(elf: ELFFile, where: str) -> int:
    machine, kind = str(elf["e_machine"]), str(elf["e_type"])
    bits = _BITS.get(machine)
    if bits is None or elf.elfclass != bits or not elf.little_endian:
        name = machine.removeprefix("EM_")
        raise ImageError(
            f"is for machine {name} ({elf.elfclass}-bit, {'little' if elf.little_endian else 'big'} endian)",
            where=where,
            hint="x86 objects are wanted: i386 or x86-64",
        )
    if kind != "ET_REL":
        kinds = {"ET_EXEC": "an executable", "ET_DYN": "a shared object or executable", "ET_CORE": "a core dump"}
        raise ImageError(
            f"is {kinds.get(kind, f'an ELF file of type {kind}')}, not a relocatable object",
            where=where,
            hint="pass the .o file that the compiler makes with -c",
        )
    return bits


def _rank(name: str) -> int:
    for rank, family in enumerate(_FAMILIES):
        if name == family or name.startswith(f"{family}."):
            return rank
    return -1


def _place(elf: ELFFile, where: str, org: int, wanted: str | None) -> list[_Placed]:
    candidates = [
        (index, section)
        for index, section in enumerate(elf.iter_sections())
        if section["sh_flags"] & ALLOCATED
        and section["sh_size"]
        and section["sh_type"] in ("SHT_PROGBITS", "SHT_NOBITS")
    ]
    names = {section.name for _, section in candidates}
    if wanted is not None:
        chosen = [one for one in candidates if one[1].name == wanted]
    elif _KERNEL_STUB[0] in names:
        chosen = sorted((one for one in candidates if one[1].name in _KERNEL_STUB), key=_stub_order)
    else:
        chosen = sorted((one for one in candidates if _rank(one[1].name) >= 0), key=_family_order)
    if not chosen:
        what = f"has no section {wanted} with contents" if wanted else "has no code or data"
        raise ImageError(what, where=where, hint="it has " + (", ".join(sorted(names)) or "no allocated section"))
    placed: list[_Placed] = []
    address = org
    for index, section in chosen:
        alignment = max(int(section["sh_addralign"]), 1)
        address += -address % alignment
        size = int(section["sh_size"])
        if size > MAX_SIZE or address + size - org > MAX_SIZE:
            raise ImageError(f"section {section.name} makes the image larger than {MAX_SIZE:#x} bytes", where=where)
        data = bytes(size) if section["sh_type"] == "SHT_NOBITS" else bytes(section.data())
        if len(data) != size:
            raise ImageError(f"is truncated: section {section.name} has {len(data)} of {size} bytes", where=where)
        placed.append(_Placed(index, str(section.name), address, data))
        address += size
    return placed


def _stub_order(one: tuple[int, Section]) -> int:
    return _KERNEL_STUB.index(one[1].name)


def _family_order(one: tuple[int, Section]) -> int:
    return _rank(one[1].name)


def _value(elf: ELFFile, symbol: Symbol, placed: dict[int, _Placed], where: str, externals: Mapping[str, int]) -> int:
    """The address of ``symbol`` in the flat image."""
    home, name = symbol["st_shndx"], symbol.name
    if home == "SHN_UNDEF":
        if not name:
            return 0
        if name in externals:
            return externals[name]
        if symbol["st_info"]["bind"] == "STB_WEAK":
            return 0
        raise ImageError(
            f"symbol {name} is not defined in this object", where=where, hint="link the parts with `ld -r` first"
        )
    if home == "SHN_ABS":
        return int(symbol["st_value"])
    if home == "SHN_COMMON":
        raise ImageError(f"symbol {name} is a common symbol", where=where, hint="compile with -fno-common")
    if home not in placed:
        raise ImageError(
            f"symbol {name or elf.get_section(home).name} is in section {elf.get_section(home).name}, "
            "which is not part of the flat image",
            where=where,
        )
    return placed[home].address + int(symbol["st_value"])


def _relocations(
    elf: ELFFile, placed: Sequence[_Placed], bits: int, org: int, *, path: str, externals: Mapping[str, int]
) -> list[Relocation]:
    by_index = {one.index: one for one in placed}
    found: list[Relocation] = []
    for section in elf.iter_sections():
        if section["sh_type"] not in ("SHT_REL", "SHT_RELA") or section["sh_info"] not in by_index:
            continue
        target = by_index[section["sh_info"]]
        symbols = elf.get_section(section["sh_link"])
        if not isinstance(section, RelocationSection) or not isinstance(symbols, SymbolTableSection):
            raise ImageError(f"the relocations of {target.name} have no symbol table", where=path)
        for raw in section.iter_relocations():
            offset = int(raw["r_offset"])
            where = f"{path}, {target.name}+{offset:#x}"
            kind = relocation_type(int(raw["r_info_type"]), bits, where)
            if offset + kind.size > len(target.data):
                raise ImageError("a relocation points outside its section", where=where)
            symbol = symbols.get_symbol(raw["r_info_sym"])
            if symbol is None:
                raise ImageError("a relocation names a symbol that does not exist", where=where)
            addend = int(raw["r_addend"]) if section["sh_type"] == "SHT_RELA" else None
            value = _value(elf, symbol, by_index, where, externals)
            found.append(Relocation(target.address - org + offset, kind, str(symbol.name), value, addend, where))
    return found


def _symbols(elf: ELFFile, placed: Sequence[_Placed]) -> tuple[dict[str, int], dict[str, int]]:
    by_index = {one.index: one for one in placed}
    symbols: dict[str, int] = {}
    constants: dict[str, int] = {}
    table = elf.get_section_by_name(".symtab")
    for symbol in table.iter_symbols() if isinstance(table, SymbolTableSection) else ():
        name = str(symbol.name)
        if not name or name.startswith(".L") or symbol["st_info"]["type"] in ("STT_SECTION", "STT_FILE"):
            continue
        if symbol["st_shndx"] in by_index:
            symbols[name] = by_index[symbol["st_shndx"]].address + int(symbol["st_value"])
        elif symbol["st_shndx"] == "SHN_ABS":
            constants[name] = int(symbol["st_value"])
    return symbols, constants
