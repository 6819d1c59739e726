"""Kernel files made here, field by field: every compression, every damage, and no kernel in any of them."""

from __future__ import annotations

import bz2
import json
import lzma
import random
import struct
import subprocess
import sys
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import lz4.block
import pytest
import zstandard

from emu.errors import EXIT_BAD_INPUT, ImageError
from emu.kernelfile import KernelStub, StubForm, find_stub, is_kernel, kernel_info, kernel_text
from emu.kernelfile.bzimage import read_setup
from emu.kernelfile.decompress import FORMATS, decompress
from emu.kernelfile.forms import follow, gdt_restored_from, has_slot
from emu.kernelfile.kallsyms import read_kallsyms
from emu.kernelfile.vmlinux import Piece, Vmlinux
from emu.kernelfile.xz_index import unpacked_size

BANNER = b"Linux version 6.9.0-made-up (nobody@nowhere) #1 SMP\0"
TEXT, RODATA, STUB_AT = 0xFFFFFFFF81000000, 0xFFFFFFFF82000000, 0x1000
MOST_SECONDS = 2.0
MOST_KIB = 1 << 20


def little(value: int, size: int = 4) -> bytes:
    return (value & (1 << 8 * size) - 1).to_bytes(size, "little")


def classic64(linear: int) -> bytes:
    """No stub that would run, but one whose jumps lead where those of the classic form lead."""
    code = bytearray(bytes.fromhex("5355415441554156 4157 9c 4c8b5e08 4989a300080000"))
    identity = len(code) + 10
    code += b"\x49\x81\xc0" + little(identity) + b"\x41\x50\xc3"
    call = len(code)
    code += b"\xe8" + bytes(4) + b"\x90" * 8
    virtual = len(code) + 9
    code += b"\x48\xc7\xc0" + little(linear + virtual) + b"\x50\xc3"
    code += b"\x90\x90\xc3"
    swap = len(code)
    code[call + 1 : call + 5] = little(swap - call - 5)
    return bytes(code + b"\x90\xc3\xcc")


def classic32() -> bytes:
    code = bytearray(bytes.fromhex("53565755 9c 8b6c241c 8b7d04 89a700080000"))
    code += b"\x05" + little(len(code) + 7) + b"\x50\xc3"
    call = len(code)
    code += b"\xe8" + bytes(4) + b"\xe8" + bytes(4) + b"\x90" * 4
    code += b"\x05" + little(len(code) + 7) + b"\x50\xc3" + b"\x90\xc3"
    code[call + 1 : call + 5] = little(len(code) - call - 5)
    return bytes(code + b"\x90\xc3\xcc")


def elf(sections: list[tuple[str, int, bytes]], bits: int = 64) -> bytes:
    """An executable with these (name, address, content), and nothing else."""
    names = b"\0" + b"".join(name.encode() + b"\0" for name, _, _ in sections) + b".shstrtab\0"
    header, row = (64, 64) if bits == 64 else (52, 40)
    content, rows = bytearray(), [bytes(row)]
    for name, address, data in [*sections, (".shstrtab", 0, names)]:
        kind, flags = (3, 0) if name == ".shstrtab" else (1, 6)
        fields = (
            names.index(name.encode() + b"\0"),
            kind,
            flags,
            address,
            header + len(content),
            len(data),
            0,
            0,
            1,
            0,
        )
        rows.append(struct.pack("<IIQQQQIIQQ" if bits == 64 else "<IIIIIIIIII", *fields))
        content += data
    ident = b"\x7fELF" + bytes((2 if bits == 64 else 1, 1, 1)) + bytes(9)
    machine, at = (62 if bits == 64 else 3), header + len(content)
    head = struct.pack("<HHIQQQIHHHHHH" if bits == 64 else "<HHIIIIIHHHHHH",
                       2, machine, 1, 0, 0, at, 0, header, 0, 0, row, len(rows), len(rows) - 1)  # fmt: skip
    return ident + head + bytes(content) + b"".join(rows)


def vmlinux(stub: bytes = b"", bits: int = 64) -> bytes:
    text = b"\x90" * STUB_AT + (stub or classic64(TEXT + STUB_AT)) + b"\x90" * 64
    return elf([(".text", TEXT if bits == 64 else 0xC1000000, text), (".rodata", RODATA & 0xFFFFFFFF, BANNER)], bits)


def gzip(data: bytes) -> bytes:
    packer = zlib.compressobj(9, zlib.DEFLATED, 31)
    return packer.compress(data) + packer.flush()


def lz4_legacy(data: bytes, times: int = 1) -> bytes:
    parts = [data[at : at + (8 << 20)] for at in range(0, len(data), 8 << 20)]
    blocks = b"".join(
        little(len(block)) + block for part in parts for block in [lz4.block.compress(part, store_size=False)]
    )
    return b"\x02\x21\x4c\x18" + blocks * times + little(len(data))


PACK: dict[str, Callable[[bytes], bytes]] = {
    "gzip": gzip,
    "xz": lambda data: lzma.compress(data, lzma.FORMAT_XZ),
    "lzma": lambda data: lzma.compress(data, lzma.FORMAT_ALONE),
    "zstd": lambda data: zstandard.ZstdCompressor().compress(data) + little(len(data)),
    "lz4": lz4_legacy,
    "bzip2": bz2.compress,
}


def bzimage(payload: bytes, *, version: int = 0x20F, loadflags: int = 1, setup_sects: int = 2) -> bytes:
    data = bytearray((setup_sects + 1) * 512)
    data[0x1F1] = setup_sects
    data[0x1FE:0x200] = b"\x55\xaa"
    data[0x202:0x206] = b"HdrS"
    data[0x206:0x208] = little(version, 2)
    data[0x20E:0x210] = little(0x200, 2)
    data[0x211] = loadflags
    data[0x248:0x250] = little(0x20) + little(len(payload))
    data[0x258:0x264] = little(0x1000000, 8) + little(1 << 20)
    data[0x400:0x406] = b"6.9.0\0"
    return bytes(data) + bytes(0x20) + payload + bytes(16)


def saved(folder: Path, content: bytes, name: str = "vmlinuz") -> Path:
    path = folder / name
    path.write_bytes(content)
    return path


def refused(folder: Path, content: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        find_stub(saved(folder, content))
    return str(caught.value)


# ---- what is found ---------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PACK)
def test_every_compression(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, bzimage(PACK[name](vmlinux())))
    stub = find_stub(path)
    assert (stub.form, stub.linear, stub.version) == (StubForm.X86_64, TEXT + STUB_AT, "6.9.0-made-up")
    assert stub.code == classic64(TEXT + STUB_AT)
    told = kernel_info(path)
    assert told["compression"] == name
    assert json.loads(json.dumps(told))["stub"]["sha256"] == stub.sha256


def test_the_text_for_people(tmp_path: Path) -> None:
    text = kernel_text(kernel_info(saved(tmp_path, bzimage(gzip(vmlinux())))))
    assert "Linux 6.9.0-made-up, 64-bit, packed with gzip" in text
    assert "classic x86_64 form" in text
    assert "boot protocol 2.15" in text


def test_an_elf_alone_and_a_32_bit_one(tmp_path: Path) -> None:
    stub = find_stub(saved(tmp_path, vmlinux(classic32(), 32), "vmlinux"))
    assert (stub.form, stub.bits, stub.linear) == (StubForm.I386, 32, 0xC1000000 + STUB_AT)
    assert len(stub.code) == len(classic32())
    parts = list(stub.parts.values())
    assert parts == sorted(parts)
    image = stub.image(0x5000)
    assert image.symbols["relocate_kernel"] == 0x5000
    assert image.symbols["saved_context"] == 0x5800


def test_is_kernel_takes_the_files_of_kernels_only(tmp_path: Path) -> None:
    assert is_kernel(saved(tmp_path, bzimage(b"x")))
    assert is_kernel(saved(tmp_path, vmlinux()))
    assert not is_kernel(saved(tmp_path, b"relocate_new_kernel:\n\tret\n"))
    assert not is_kernel(tmp_path / "nothing")


def test_setup_sects_0_means_4() -> None:
    header = read_setup(bzimage(b"x", setup_sects=4).replace(b"\x04", b"\0", 1), "x")
    assert header.protected_mode == 5 * 512
    assert header.kernel_version == "6.9.0"


# ---- following the code ----------------------------------------------------------------------------------------


def test_the_parts_by_following_the_code() -> None:
    code = classic64(TEXT)
    parts = follow(code, StubForm.X86_64, TEXT)
    assert parts is not None
    assert code[parts.identity_mapped :][:1] == b"\xe8"
    assert code[parts.virtual_mapped :][:3] == b"\x90\x90\xc3"
    assert parts.size == len(code)


def test_code_that_leads_elsewhere_is_not_followed() -> None:
    assert follow(classic64(TEXT), StubForm.X86_64, TEXT + 0x10000) is None
    assert follow(classic64(TEXT)[:40], StubForm.X86_64, TEXT) is None


def test_marks_of_the_6_14_form() -> None:
    code = b"\x52\xff\xd2" + b"\x48\xc7\xc0" + little(-0x1000) + b"\x0f\x01\x90" + little(0x9A)
    assert has_slot(code)
    assert not has_slot(code[1:])
    assert gdt_restored_from(code) == (0xFFFFFFFFFFFFF000, 0x9A)
    assert gdt_restored_from(code[3:10]) is None


def test_an_object_finds_its_data_by_its_words() -> None:
    parts = {"identity_mapped": 0x40, "kexec_pa_swap_page": 0x308, "saved_rsp": 0x300}
    stub = KernelStub(StubForm.X86_64_6_14, bytes(0x400), 0, parts, 0, "", "", "x")
    assert stub.data == 0x300


# ---- kallsyms --------------------------------------------------------------------------------------------------


def kallsyms(symbols: list[tuple[str, int]], *, order: bool = False, behind: bool = True, step: int = 8) -> bytes:
    """The tables for ``symbols`` with their types, uncompressed: every token stands for itself.

    ``step`` 4: as since 7.0, aligned to 4, the offsets relative to their own places; all of it is at RODATA.
    """

    def aligned(data: bytes) -> bytes:
        return data + bytes(-len(data) % step)

    tokens = [bytes((code,)) if 32 < code < 127 else b"ab" for code in range(256)]
    index, table = [], b""
    for token in tokens:
        index.append(len(table))
        table += token + b"\0"
    names, markers = b"", []
    for number, (name, _) in enumerate(symbols):
        if number % 256 == 0:
            markers.append(len(names))
        size = bytes((len(name),)) if len(name) < 128 else bytes((len(name) & 0x7F | 0x80, len(name) >> 7))
        names += size + name.encode()
    places = aligned(b"".join(little(address - TEXT) for _, address in symbols)) + little(TEXT, 8)
    sorted_names = aligned(bytes(3 * len(symbols))) if order else b""
    before = (
        b"\x11" * (64 if step == 8 else 60) + (b"" if behind else places) + little(len(symbols), step) + aligned(names)
        + aligned(b"".join(map(little, markers))) + sorted_names + aligned(table) + struct.pack("<256H", *index)
    )  # fmt: skip
    if step == 4:
        here = RODATA + len(before)
        places = b"".join(little(address - here - 4 * number) for number, (_, address) in enumerate(symbols))
    return before + (places if behind else b"") + b"\x22" * 64


@pytest.mark.parametrize(
    ("order", "behind", "step"),
    [(False, False, 8), (False, True, 8), (True, False, 8), (True, True, 8), (False, True, 4)],
)
def test_kallsyms(order: bool, behind: bool, step: int) -> None:
    symbols = [(f"tsymbol_{number}" + "x" * (130 if number == 300 else 0), TEXT + 16 * number) for number in range(700)]
    symbols[5] = ("Trelocate_kernel", TEXT + 16 * 5)
    rodata = Piece(".rodata", RODATA, kallsyms(symbols, order=order, behind=behind, step=step))
    read = read_kallsyms(Vmlinux(64, (Piece(".text", TEXT, bytes(0x8000)), rodata), ""))
    assert len(read) == 700
    assert read["relocate_kernel"] == TEXT + 80
    assert read["symbol_300" + "x" * 130] == TEXT + 4800


def test_damaged_kallsyms_are_no_symbols_and_no_crash() -> None:
    whole = kallsyms([(f"tsymbol_{number}", TEXT + 16 * number) for number in range(700)])
    rng = random.Random(4)  # noqa: S311 - the same damage every time
    text = Piece(".text", TEXT, bytes(0x8000))
    read = 0
    for number in range(200):
        data = bytearray(whole[: rng.randrange(len(whole))] if number % 2 else whole)
        for _ in range(3 if data else 0):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        read += len(read_kallsyms(Vmlinux(64, (text, Piece(".rodata", RODATA, bytes(data))), ""))) <= 700
    assert read == 200


# ---- what is refused -------------------------------------------------------------------------------------------


def test_refusals_say_what_was_found(tmp_path: Path) -> None:
    assert "it is empty" in refused(tmp_path, b"")
    assert "begins with 23 21 2f 62" in refused(tmp_path, b"#!/bin/sh\n")
    assert "no relocate_kernel: no symbol names it" in refused(tmp_path, bzimage(gzip(vmlinux(b"\x90" * 40))))
    assert "2 places begin like it" in refused(tmp_path, vmlinux(classic64(TEXT) * 2))
    assert "does not go on as it" in refused(tmp_path, vmlinux(classic64(TEXT + 0x5000)))
    assert "packed with lzo" in refused(tmp_path, bzimage(b"\x89LZO\0\r\n\x1a\n" + bytes(99)))
    assert "unknown kind, 58 58" in refused(tmp_path, bzimage(b"XX" * 50))
    assert "boot protocol 2.07" in refused(tmp_path, bzimage(b"", version=0x207))
    assert "zImage" in refused(tmp_path, bzimage(b"", loadflags=0))
    assert "holds no ELF file" in refused(tmp_path, bzimage(gzip(b"text")))


def test_a_kernel_without_a_stub_still_has_an_info(tmp_path: Path) -> None:
    told = kernel_info(saved(tmp_path, bzimage(gzip(vmlinux(b"\x90" * 40)))))
    assert told["stub"] is None
    assert "no relocate_kernel" in str(told["no_stub"])
    assert "no stub that can run here" in kernel_text(told)


def damaged(folder: Path, content: bytes) -> bool:
    """Whether ``content`` was refused; anything but a stub or an ImageError fails the test."""
    path = saved(folder, content)
    begin = time.monotonic()
    try:
        return not find_stub(path).code
    except ImageError as error:
        return "\n" not in str(error)
    finally:
        assert time.monotonic() - begin < MOST_SECONDS
        path.unlink()


@pytest.mark.parametrize("name", PACK)
def test_truncated_at_200_places(tmp_path: Path, name: str) -> None:
    whole = bzimage(PACK[name](vmlinux()))[:-16]
    whole = whole[:-4] if name in ("zstd", "lz4") else whole
    places = [len(whole) * number // 200 for number in range(200)]
    assert [at for at in places if not damaged(tmp_path, whole[:at])] == []


def test_a_thousand_random_flips(tmp_path: Path) -> None:
    rng = random.Random(1)  # noqa: S311 - the same damage every time
    wholes = [bzimage(pack(vmlinux())) for pack in PACK.values()]
    outcomes = []
    for number in range(1000):
        data = bytearray(wholes[number % len(wholes)])
        for _ in range(rng.choice((1, 1, 4, 30))):
            data[rng.randrange(0x1F1, len(data))] ^= 1 << rng.randrange(8)
        outcomes.append(damaged(tmp_path, bytes(data)))
    assert len(outcomes) == 1000
    assert 300 < sum(outcomes) < 1000


def test_flips_in_an_elf(tmp_path: Path) -> None:
    rng = random.Random(2)  # noqa: S311 - the same damage every time
    whole = vmlinux()
    for _ in range(300):
        data = bytearray(whole)
        data[rng.choice((rng.randrange(64), rng.randrange(len(data) - 300, len(data))))] ^= 1 << rng.randrange(8)
        assert damaged(tmp_path, bytes(data)) in (True, False)


def test_the_end_of_an_xz_stream_is_read_before_anything_is_unpacked(monkeypatch: pytest.MonkeyPatch) -> None:
    size = little(8 << 20)
    whole = lzma.compress(bytes(8 << 20), lzma.FORMAT_XZ)
    assert unpacked_size(whole) == unpacked_size(whole + size) == 8 << 20
    assert len(decompress(whole + size, "x").data) == 8 << 20
    monkeypatch.setattr(lzma, "LZMADecompressor", None)
    with pytest.raises(ImageError, match="unpacks to more than 4 MiB"):
        decompress(whole, "x", 4 << 20)
    with pytest.raises(ImageError, match="another number is said"):
        decompress(whole + little(7 << 20), "x")
    index_and_footer = 12 + 4 * (int.from_bytes(whole[-8:-4], "little") + 1)
    for bit in range(8 * index_and_footer):
        data = bytearray(whole)
        data[-1 - bit // 8] ^= 1 << bit % 8
        with pytest.raises(ImageError, match="damaged or truncated: xz"):
            decompress(bytes(data), "x")


class Packer(Protocol):
    def compress(self, data: bytes, /) -> bytes: ...

    def flush(self) -> bytes: ...


def bomb(name: str) -> bytes:
    """Zeros, more than are taken, in few bytes."""
    size, zeros = 160, bytes(1 << 20)
    if name == "lz4":
        return lz4_legacy(bytes(8 << 20), size // 8)
    if name == "bzip2":
        return bz2.compress(zeros * size)
    packers: dict[str, Callable[[], Packer]] = {
        "zstd": lambda: zstandard.ZstdCompressor(level=1).compressobj(),
        "gzip": lambda: zlib.compressobj(1, zlib.DEFLATED, 31),
        "xz": lambda: lzma.LZMACompressor(lzma.FORMAT_XZ, preset=0),
        "lzma": lambda: lzma.LZMACompressor(lzma.FORMAT_ALONE, preset=0),
    }
    packer = packers[name]()
    return b"".join([packer.compress(zeros) for _ in range(size)]) + packer.flush()


MEASURED = """
import re, sys, time
from pathlib import Path
from emu.errors import ImageError
from emu.kernelfile import find_stub
begin = time.process_time()
try:
    find_stub(Path(sys.argv[1]))
except ImageError as error:
    # not ru_maxrss: that begins with what the process that started this one held
    peak = re.search(r"VmHWM:\\s+(\\d+)", Path("/proc/self/status").read_text())[1]
    print(error.exit_status, time.process_time() - begin, peak)
    print(error)
"""


@pytest.mark.parametrize("name", PACK)
def test_bombs(tmp_path: Path, name: str) -> None:
    path = saved(tmp_path, bzimage(bomb(name)))
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run([sys.executable, "-c", MEASURED, path], cwd=root, capture_output=True, text=True, check=True)
    figures, message = done.stdout.splitlines()
    status, seconds, kib = figures.split()
    assert int(status) == EXIT_BAD_INPUT
    assert "unpacks to more than 128 MiB" in message
    assert float(seconds) < MOST_SECONDS
    assert int(kib) < MOST_KIB


def test_the_bound_is_kept_in_small() -> None:
    for known in FORMATS:
        if known.unpack is None:
            continue
        packed = PACK[known.name](bytes(5000))
        assert decompress(packed, "x", 5000).data == bytes(5000)
        with pytest.raises(ImageError, match="unpacks to more than"):
            decompress(packed, "x", 4999)
