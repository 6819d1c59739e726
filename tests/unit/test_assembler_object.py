"""Objects built by hand, field by field, so that no compiler is needed and every fault can be planted."""

from __future__ import annotations

import random
import struct
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from emu.assembler import Image, load_object, load_program
from emu.errors import ImageError

PROGBITS, SYMTAB, STRTAB, RELA, NOBITS, REL = 1, 2, 3, 4, 8, 9
ALLOC, EXEC, WRITE = 2, 4, 1
Row = tuple[str, int, int, bytes, int, int, int, int, int | None]
"""Name, type, flags, data, link, info, alignment, entry size, and a size that is not that of the data."""
UNDEFINED, ABSOLUTE, COMMON = 0, 0xFFF1, 0xFFF2


@dataclass(frozen=True)
class Section:
    name: str
    data: bytes = b""
    kind: int = PROGBITS
    flags: int = ALLOC
    align: int = 1
    size: int | None = None


@dataclass(frozen=True)
class Symbol:
    name: str
    section: int
    value: int = 0
    bind: int = 1
    kind: int = 0


@dataclass(frozen=True)
class Fixup:
    section: int
    offset: int
    kind: int
    symbol: int
    addend: int = 0


@dataclass(frozen=True)
class Object:
    """Sections count from 1, symbols from 1, as in the file."""

    sections: tuple[Section, ...]
    symbols: tuple[Symbol, ...] = ()
    fixups: tuple[Fixup, ...] = ()
    bits: int = 64
    machine: int = 62
    kind: int = 1

    def build(self) -> bytes:
        wide = self.bits == 64
        names, strings = bytearray(b"\0"), bytearray(b"\0")
        rows: list[Row] = []
        table = bytearray(24 if wide else 16)
        for symbol in self.symbols:
            name = len(strings)
            strings += symbol.name.encode() + b"\0"
            info = symbol.bind << 4 | symbol.kind
            if wide:
                table += struct.pack("<IBBHQQ", name, info, 0, symbol.section, symbol.value, 0)
            else:
                table += struct.pack("<IIIBBH", name, symbol.value, 0, info, 0, symbol.section)
        count = len(self.sections)
        rows += [(one.name, one.kind, one.flags, one.data, 0, 0, one.align, 0, one.size) for one in self.sections]
        rows.append((".symtab", SYMTAB, 0, bytes(table), count + 2, 1, 8, 24 if wide else 16, None))
        rows.append((".strtab", STRTAB, 0, bytes(strings), 0, 0, 1, 0, None))
        for home in sorted({fixup.section for fixup in self.fixups}):
            data = b"".join(self._fixup(fixup, wide=wide) for fixup in self.fixups if fixup.section == home)
            kind, size = (RELA, 24) if wide else (REL, 8)
            rows.append((".rel", kind, 0, data, count + 1, home, 8, size, None))
        rows.append((".shstrtab", STRTAB, 0, b"", 0, 0, 1, 0, None))
        return self._file(rows, names, wide=wide)

    @staticmethod
    def _fixup(fixup: Fixup, *, wide: bool) -> bytes:
        if wide:
            return struct.pack("<QQq", fixup.offset, fixup.symbol << 32 | fixup.kind, fixup.addend)
        return struct.pack("<II", fixup.offset, fixup.symbol << 8 | fixup.kind)

    def _file(self, rows: list[Row], names: bytearray, *, wide: bool) -> bytes:
        starts = []
        for row in rows:
            starts.append(len(names))
            names += row[0].encode() + b"\0"
        rows[-1] = (*rows[-1][:3], bytes(names), *rows[-1][4:])
        head, entry = (64, 64) if wide else (52, 40)
        body, headers = bytearray(), bytearray(entry)
        for name, row in zip(starts, rows, strict=True):
            _, kind, flags, data, link, info, align, each, size = row
            length = len(data) if size is None else size
            form = "<IIQQQQIIQQ" if wide else "<IIIIIIIIII"
            headers += struct.pack(form, name, kind, flags, 0, head + len(body), length, link, info, align, each)
            body += data if kind != NOBITS else b""
        ident = b"\x7fELF" + bytes((2 if wide else 1, 1, 1)) + bytes(9)
        form = "<HHIQQQIHHHHHH" if wide else "<HHIIIIIHHHHHH"
        header = struct.pack(
            form, self.kind, self.machine, 1, 0, 0, head + len(body), 0, head, 0, 0, entry, len(rows) + 1, len(rows)
        )
        return ident + header + bytes(body) + bytes(headers)


TEXT = Section(".text", bytes.fromhex("488b0500000000 48c7c200000000 c3"), flags=ALLOC | EXEC, align=16)
DATA = Section(".data", bytes(16), flags=ALLOC | WRITE, align=8)
BSS = Section(".bss", kind=NOBITS, flags=ALLOC | WRITE, align=32, size=64)
GOOD = Object(
    (DATA, TEXT, Section(".comment", b"x", flags=0), BSS),
    (
        Symbol("start", 2),
        Symbol("saved", 1, 8, bind=0),
        Symbol("ZERO", ABSOLUTE, 7),
        Symbol(".Llocal", 2, 3),
        Symbol("area", 4),
    ),
    (Fixup(2, 3, 2, 2, -4), Fixup(2, 10, 11, 5, 4), Fixup(1, 0, 1, 1, 2)),
)


def load(path: Path, built: Object | bytes, org: int = 0x1000, section: str | None = None) -> Image:
    file = path / "stub.o"
    file.write_bytes(built if isinstance(built, bytes) else built.build())
    return load_object(file, org=org, section=section)


def test_code_comes_first_then_data_then_bss(tmp_path: Path) -> None:
    image = load(tmp_path, GOOD)
    assert image.symbols == {"start": 0x1000, "saved": 0x1010 + 8, "area": 0x1020}
    assert image.constants == {"ZERO": 7}
    assert (image.bits, image.org, len(image.code)) == (64, 0x1000, 0x60)
    assert image.bits_at(0x1000) == 64


def test_relocations_are_applied(tmp_path: Path) -> None:
    code = load(tmp_path, GOOD).code
    assert int.from_bytes(code[3:7], "little") == 0x1018 - 4 - 0x1003
    assert int.from_bytes(code[10:14], "little") == 0x1020 + 4
    assert int.from_bytes(code[0x10:0x18], "little") == 0x1000 + 2


def test_an_i386_object_has_its_addends_in_place(tmp_path: Path) -> None:
    text = Section(".text", bytes.fromhex("a104000000 e8fcffffff"), flags=ALLOC | EXEC)
    built = Object((text, DATA), (Symbol("data", 2), Symbol("f", 1)), (Fixup(1, 1, 1, 1), Fixup(1, 6, 2, 2)), 32, 3)
    image = load(tmp_path, built)
    assert image.bits == 32
    assert int.from_bytes(image.code[1:5], "little") == 0x1010 + 4
    assert int.from_bytes(image.code[6:10], "little", signed=True) == 0x1000 - 4 - 0x1006


def test_a_kernels_own_stub_is_its_two_sections_code_then_data(tmp_path: Path) -> None:
    built = Object(
        (
            Section(".text", b"\xcc" * 4),
            Section(".data..relocate_kernel", b"data"),
            Section(".text..relocate_kernel", b"text"),
        ),
        (Symbol("relocate_kernel", 3), Symbol("saved_rsp", 2), Symbol("other", 1)),
    )
    image = load(tmp_path, built)
    assert image.code == b"textdata"
    assert image.symbols == {"relocate_kernel": 0x1000, "saved_rsp": 0x1004}


def test_one_section_can_be_asked_for(tmp_path: Path) -> None:
    assert load(tmp_path, replace(GOOD, fixups=()), section=".data").code == bytes(16)
    with pytest.raises(ImageError, match=r"no section \.rodata"):
        load(tmp_path, GOOD, section=".rodata")


@pytest.mark.parametrize(
    ("built", "what"),
    [
        (b"", "not an ELF"),
        (b"MZ" + bytes(100), "not an ELF"),
        (b"\x7fELF", "damaged or truncated"),
        (replace(GOOD, machine=183), "is for machine AARCH64"),
        (replace(GOOD, machine=3), "is for machine 386"),
        (replace(GOOD, kind=2), "is an executable"),
        (replace(GOOD, kind=3), "shared object"),
        (Object((Section(".comment", b"x", flags=0),)), "no code or data"),
        (replace(GOOD, symbols=(Symbol("missing", UNDEFINED),) * 5), "missing is not defined"),
        (replace(GOOD, symbols=(Symbol("shared", COMMON, 4),) * 5), "shared is a common symbol"),
        (replace(GOOD, symbols=(Symbol("note", 3),) * 5), "note is in section .comment"),
        (replace(GOOD, fixups=(Fixup(2, 3, 9, 2),)), "relocation type 9"),
        (replace(GOOD, fixups=(Fixup(2, 3, 0, 2),)), "empty relocation"),
        (replace(GOOD, fixups=(Fixup(2, 12, 2, 2),)), "outside its section"),
        (replace(GOOD, fixups=(Fixup(2, 3, 2, 99),)), "stub.o"),
        (replace(GOOD, fixups=(Fixup(2, 3, 10, 1, -0x2000),)), "cannot hold"),
        (Object((replace(TEXT, size=1 << 40),)), "larger than"),
        (Object((replace(TEXT, size=4096),)), "truncated"),
    ],
)
def test_what_is_no_usable_object_is_refused_with_one_clear_error(
    tmp_path: Path, built: Object | bytes, what: str
) -> None:
    with pytest.raises(ImageError) as caught:
        load(tmp_path, built)
    assert what in str(caught.value)
    assert "stub.o" in caught.value.where


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="No such file"):
        load_object(tmp_path / "none.o")
    with pytest.raises(ImageError, match="No such file"):
        load_program(tmp_path / "none.o")


@pytest.mark.parametrize("seed", range(8))
def test_a_damaged_object_is_loaded_or_refused_and_nothing_else(tmp_path: Path, seed: int) -> None:
    whole = GOOD.build()
    noise = random.Random(seed)  # noqa: S311 - damage, not keys
    refused = 0
    for _ in range(60):
        damaged = bytearray(whole)
        for _ in range(noise.randint(1, 4)):
            damaged[noise.randrange(len(damaged))] = noise.randrange(256)
        cut = noise.randrange(len(damaged)) if noise.random() < 0.3 else len(damaged)
        try:
            load(tmp_path, bytes(damaged[:cut]))
        except ImageError:
            refused += 1
    assert refused > 0


def test_load_program_goes_by_content_not_by_name(tmp_path: Path) -> None:
    source, binary, junk = tmp_path / "a.o", tmp_path / "b.S", tmp_path / "c.S"
    source.write_text("nop\n")
    binary.write_bytes(GOOD.build())
    junk.write_bytes(b"\xff\xfe\x00\x01")
    assert load_program(source).code == b"\x90"
    assert load_program(binary, org=0x1000).symbols["start"] == 0x1000
    with pytest.raises(ImageError, match="neither an ELF object nor"):
        load_program(junk)
