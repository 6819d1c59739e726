"""``kjump boot`` on small images: every format starts as it should, and every end is told."""

from __future__ import annotations

import io
import json
import re
import struct
import sys
from pathlib import Path

import pytest

from emu.assembler.program import assemble_text
from emu.boot.formats import Format, Wishes, make_plan, recognise
from emu.boot.linux import linux_plan
from emu.boot.multiboot import find_header
from emu.cli import main
from emu.errors import EngineError, ImageError, KjumpError
from emu.kexec.e820 import default_map
from emu.kexec.layout import BOOT_PARAMS_ADDRESS, COMMAND_LINE_ADDRESS
from emu.machine import gates

MAP = default_map(16 << 20)
PRINT = "movb $'{0}', %al\nmovw $0x3f8, %dx\noutb %al, %dx\n"


def say(text: str) -> str:
    return "".join(
        PRINT.format(one) if one != "\n" else "movb $10, %al\nmovw $0x3f8, %dx\noutb %al, %dx\n" for one in text
    )


def code(text: str, org: int, bits: int) -> bytes:
    return assemble_text(text, org=org, bits=bits).code


def boot(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *words: str, typed: bytes = b""
) -> tuple[int, dict[str, object], str]:
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(typed)))
    status = main(["boot", "--json", "--ram", "16M", *words])
    captured = capsys.readouterr()
    assert captured.out, (status, captured.err)
    return status, json.loads(captured.out), captured.err


def bzimage(text: str, *, bits: int) -> bytes:
    """A kernel for the boot protocol whose protected-mode part is ``text``, entered by ``bits``-bit code."""
    head = bytearray(1024)
    head[0x1F1] = 1
    struct.pack_into("<H", head, 0x1FE, 0xAA55)
    head[0x200:0x202] = b"\xeb\x66"
    head[0x202:0x206] = b"HdrS"
    struct.pack_into("<H", head, 0x206, 0x20F)
    head[0x211] = 1
    struct.pack_into("<I", head, 0x22C, 0x7FFFFFFF)
    struct.pack_into("<IBBH", head, 0x230, 0x200000, 1, 21, 1 if bits == 64 else 0)
    struct.pack_into("<I", head, 0x238, 100)
    struct.pack_into("<QI", head, 0x258, 0x400000, 0x100000)
    offset = 0x200 if bits == 64 else 0
    return bytes(head) + bytes(offset) + code(text, 0x400000 + offset, bits)


@pytest.mark.parametrize("bits", [32, 64])
def test_a_bzimage_is_entered_as_the_boot_protocol_says(
    bits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """It prints the first byte of its command line and of its initramfs, found through the zero page."""
    si, bx = ("%rsi", "%rbx") if bits == 64 else ("%esi", "%ebx")
    text = (
        f"movl 0x228({si}), %ebx\nmovb ({bx}), %al\nmovw $0x3f8, %dx\noutb %al, %dx\n"
        f"movl 0x218({si}), %ebx\nmovb ({bx}), %al\noutb %al, %dx\nmovb 0x1e8({si}), %al\noutb %al, %dx\n"
        f"xorl %eax, %eax\noutb %al, $0xf4\n"
    )
    image, initrd = tmp_path / "bzImage", tmp_path / "initrd"
    image.write_bytes(bzimage(text, bits=bits))
    initrd.write_bytes(b"I" * 5000)
    status, told, _ = boot(
        capsys, monkeypatch, str(image), "--initrd", str(initrd), "--append", "C is first", "--bits", str(bits)
    )
    assert (status, told["end"], told["status"]) == (0, "exit", 0)
    assert told["console"] == "CI" + chr(len(MAP.ranges))


def test_the_zero_page_and_where_things_go() -> None:
    data = bzimage("hlt", bits=64)
    plan = linux_plan(data, "k", MAP, append="a b", initrd=b"x" * 5000)
    pieces = dict(plan.pieces)
    page = pieces[BOOT_PARAMS_ADDRESS]
    image, size = struct.unpack_from("<II", page, 0x218)
    assert (pieces[image], size, image & 0xFFF) == (b"x" * 5000, 5000, 0)
    assert image + size <= 16 << 20 < image + 2 * 0x1000 + size
    assert pieces[COMMAND_LINE_ADDRESS] == b"a b\0"
    assert page[0x1F1:0x268] != bytes(0x77)
    assert page[0x2D0 : 0x2D0 + 20 * page[0x1E8]] == MAP.encode()
    assert plan.entry == 0x400200


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"append": "x" * 101}, "100 bytes of command line"),
        ({"initrd": bytes(13 << 20)}, "does not fit"),
        ({"bits": 64}, "no 64-bit"),
    ],
)
def test_a_kernel_that_cannot_be_started(change: dict[str, object], what: str) -> None:
    with pytest.raises(ImageError, match=what):
        linux_plan(bzimage("hlt", bits=32), "k", MAP, **change)  # type: ignore[arg-type]
    with pytest.raises(ImageError, match="not all RAM"):
        linux_plan(bzimage("hlt", bits=32), "k", default_map(4 << 20))


def multiboot(text: str, flags: int = 0x10003) -> bytes:
    head = struct.pack(
        "<III5I", 0x1BADB002, flags, -(0x1BADB002 + flags) & 0xFFFFFFFF, 0x200000, 0x200000, 0, 0, 0x200020
    )
    return head + code(text, 0x200020, 32)


def test_multiboot_gives_magic_command_line_memory_and_module(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        "cmpl $0x2badb002, %eax\njne bad\nmovw $0x3f8, %dx\nmovl 16(%ebx), %esi\n"
        "next: lodsb\ntestb %al, %al\njz end\noutb %al, %dx\njmp next\n"
        "end: movl 24(%ebx), %esi\nmovl (%esi), %esi\nmovb (%esi), %al\noutb %al, %dx\n"
        "movl 8(%ebx), %eax\ncmpl $15360, %eax\njne bad\nmovb $0, %al\noutb %al, $0xf4\n"
        "bad: movb $9, %al\noutb %al, $0xf4\n"
    )
    image, module = tmp_path / "k", tmp_path / "m"
    image.write_bytes(multiboot(text))
    module.write_bytes(b"M")
    status, told, _ = boot(capsys, monkeypatch, str(image), "--append", "one two", "--initrd", str(module))
    assert (status, told["console"]) == (0, f"{image} one twoM")


def test_a_multiboot_header_counts_only_where_it_adds_up() -> None:
    data = multiboot("hlt")
    assert find_header(data) is not None
    assert find_header(data[:8] + b"\0\0\0\0" + data[12:]) is None
    assert find_header(bytes(8192) + data) is None
    with pytest.raises(ImageError, match="flags 0x4"):
        make_plan(multiboot("hlt", 0x10007), "k", MAP, Wishes())


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_a_flat_image_in_each_width(
    bits: int, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = tmp_path / "flat"
    image.write_bytes(code("nop\nbegin: " + say("ok") + "movb $3, %al\noutb %al, $0xf4\n", 0x10000, bits))
    words = [str(image), "--format", "flat", "--load", "0x10000", "--entry", "0x10001", "--bits", str(bits)]
    status, told, _ = boot(capsys, monkeypatch, *words)
    assert (status, told["end"], told["status"], told["console"]) == (1, "exit", 3, "ok")


def test_a_rom_starts_from_the_reset_vector(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A far jump at the vector goes to the same bytes below 1 MiB."""
    rom = bytearray(0x10000)
    body = code(say("rom") + "movb $0, %al\noutb %al, $0xf4\n", 0x100, 16)
    rom[0x100 : 0x100 + len(body)] = body
    rom[0xFFF0:0xFFF5] = b"\xea" + struct.pack("<HH", 0x100, 0xF000)
    image = tmp_path / "rom"
    image.write_bytes(rom)
    status, told, _ = boot(capsys, monkeypatch, str(image), "--format", "rom")
    assert (status, told["console"], told["end"]) == (0, "rom", "exit")


def flat(tmp_path: Path, text: str) -> str:
    image = tmp_path / "flat"
    image.write_bytes(code(text, 0x7C00, 16))
    return str(image)


@pytest.mark.parametrize(
    ("text", "words", "end", "status"),
    [
        ("cli\nhlt\n", [], "halt", 0),
        ("movb $0xfe, %al\noutb %al, $0x64\n", [], "reset", 0),
        ("movw $0xcf9, %dx\nmovb $6, %al\noutb %al, %dx\n", [], "reset", 0),
        ("spin: jmp spin\n", ["--time", "0.01"], "limit", 1),
        ("spin: jmp spin\n", ["--instructions", "1000"], "limit", 1),
        (say("login:!") + "spin: jmp spin\n", ["--until", "log.n:"], "matched", 0),
        (".byte 0x0f, 0x01, 0x1e, 0x00, 0x7d\nint $3\n", [], "triple fault", 1),
    ],
)
def test_every_end_is_told(
    text: str,
    words: list[str],
    end: str,
    status: int,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    got, told, _ = boot(capsys, monkeypatch, flat(tmp_path, text), "--format", "flat", *words)
    assert (got, told["end"], told["ok"]) == (status, end, status == 0)
    if end == "limit" and words[0] == "--instructions":
        assert told["instructions"] == 1000
    if end == "matched":
        assert told["console"] == "login:", "the run ends at the byte that completes the match"


def test_post_codes_are_shown(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    text = "movb $0x12, %al\noutb %al, $0x84\nmovb $0x34, %al\noutb %al, $0x84\ncli\nhlt\n"
    _, told, err = boot(capsys, monkeypatch, flat(tmp_path, text), "--format", "flat", "--post-port", "0x84")
    assert told["post"] == [0x12, 0x34]
    assert err.splitlines() == ["kjump: POST 12", "kjump: POST 34"]


ECHO = (
    # IRQ 4 at vector 0x24 in the interrupt table: echo the byte, end of interrupt; 'q' ends the run
    "xorw %ax, %ax\nmovw %ax, %ds\nmovw $isr, 0x90\nmovw %ax, 0x92\nmovw $0x8000, %sp\n"
    "movb $0x11, %al\noutb %al, $0x20\nmovb $0x20, %al\noutb %al, $0x21\nmovb $4, %al\noutb %al, $0x21\n"
    "movb $1, %al\noutb %al, $0x21\nmovb $0xef, %al\noutb %al, $0x21\n"
    "movw $0x3fc, %dx\nmovb $8, %al\noutb %al, %dx\nmovw $0x3f9, %dx\nmovb $1, %al\noutb %al, %dx\n"
    "movb $0x34, %al\noutb %al, $0x43\nmovb $0, %al\noutb %al, $0x40\noutb %al, $0x40\n"
    "wait: sti\nhlt\njmp wait\n"
    "isr: movw $0x3f8, %dx\ninb %dx, %al\noutb %al, %dx\ncmpb $'q', %al\njne more\nmovb $0, %al\noutb %al, $0xf4\n"
    "more: movw $0x3fd, %dx\ninb %dx, %al\ntestb $1, %al\njnz isr\nmovb $0x20, %al\noutb %al, $0x20\niret\n"
)


def test_what_is_piped_is_typed_when_the_guest_waits(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    image = flat(tmp_path, ECHO)
    runs = [boot(capsys, monkeypatch, image, "--format", "flat", typed=b"ab\ncq\n") for _ in range(2)]
    assert (runs[0][0], runs[0][1]["console"]) == (0, "ab\rcq")
    assert runs[0] == runs[1], "the same input gives the same run"


def test_a_guest_that_waits_for_more_than_there_is_ends(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    status, told, _ = boot(capsys, monkeypatch, flat(tmp_path, ECHO), "--format", "flat")
    assert (status, told["end"]) == (1, "input")


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["--load", "0x1000"], "--load: means nothing"),
        (["--until", "("], "--until: .* no regular expression"),
        (["--ram", "16X"], "--ram"),
        (["--e820", "{map}", "--ram", "16M"], "the map says"),
        (["--bits", "16"], "--bits"),
        (["--debug", "--json"], "--debug: a prompt is no JSON"),
        (["-ex", "c"], "-ex: means something to the debugger only"),
        (["--symbols", "vmlinux"], "--symbols: means"),
    ],
)
def test_bad_words_are_told_in_one_line(
    words: list[str], what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    import re

    image, table = tmp_path / "k", tmp_path / "map.toml"
    image.write_bytes(bzimage("hlt", bits=64))
    table.write_text("[[range]]\nstart = 0\nsize = 0x1000000\n")
    assert main(["boot", str(image), *(word.format(map=table) for word in words)]) == 2
    err = capsys.readouterr().err
    assert err.count("\n") == 1
    assert re.search(what, err)


def test_a_file_of_no_known_format_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(ImageError, match="--format flat"):
        recognise(b"nothing", "x")
    with pytest.raises(KjumpError, match="--initrd"):
        make_plan(b"\xf4", "x", MAP, Wishes(format=Format.FLAT), b"initrd")
    assert main(["boot", str(tmp_path / "none")]) == 2
    assert "No such file" in capsys.readouterr().err


def test_the_memory_map_can_be_given(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A Multiboot kernel prints how many KiB of upper memory it is told of, as a character."""
    table, image = tmp_path / "map.toml", tmp_path / "k"
    table.write_text("[[range]]\nstart = 0\nend = 0x9f000\n[[range]]\nstart = 0x100000\nsize = 0x210000\n")
    image.write_bytes(multiboot("movl 8(%ebx), %eax\nshrl $6, %eax\nmovw $0x3f8, %dx\noutb %al, %dx\nhlt\n"))
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"")))
    assert main(["boot", "--json", "--e820", str(table), str(image)]) == 0
    assert json.loads(capsys.readouterr().out)["console"] == chr(0x210000 // 1024 // 64)


def test_code_that_may_not_be_changed_ends_in_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under a security module: no gate can stand, and nothing is booted in some other way."""

    def forbidden(page: int, *_: int) -> None:
        raise EngineError(f"the rights of host memory at {page:#x} cannot be changed: error 13", hint="run it outside")

    monkeypatch.setattr(gates, "_PAGES", set())
    monkeypatch.setattr(gates, "protect", forbidden)
    image = tmp_path / "image"
    image.write_bytes(b"\xf4")
    assert main(["boot", "--format", "flat", str(image)]) == 3
    captured = capsys.readouterr()
    assert captured.out == ""
    assert re.fullmatch(r"kjump: the rights of host memory at 0x\w+ .*: error 13 \(run it outside\)\n", captured.err)
