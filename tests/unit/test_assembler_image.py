from __future__ import annotations

from emu.assembler import Image, assemble_text

SOURCE = """# a stub
.macro save reg
    push \\reg
.endm
.code16
start:
    cli
.code32
main:
    save %ebx
    nop            # waits
.balign 16
.code64
tail:
    hlt
.Lhidden:
.set HERE, tail
.set SIZE, . - start
"""


def image() -> Image:
    return assemble_text(SOURCE, "stub.S", org=0x1000, bits=64)


def test_symbols_are_absolute_and_local_labels_are_not_among_them() -> None:
    assert image().symbols == {"start": 0x1000, "main": 0x1001, "tail": 0x1010, "HERE": 0x1010}
    assert image().constants == {"SIZE": 0x11}


def test_symbol_at_names_the_nearest_before() -> None:
    assert image().symbol_at(0x1001) == "main"
    assert image().symbol_at(0x1003) == "main+0x2"
    assert image().symbol_at(0x0FFF) == "0xfff"
    assert image().symbol_at(0x5000) == "0x5000"


def test_lines_go_through_macros_and_padding_has_none() -> None:
    found = image().line_at(0x1001)
    assert found is not None
    assert (found.file, found.line, found.size, found.called_from) == ("stub.S", 3, 1, "stub.S:10")
    assert image().source_text(found) == "    push \\reg"
    nop = image().line_at(0x1002)
    assert nop is not None
    assert image().source_text(nop) == "    nop            # waits"
    assert image().line_at(0x1003) is None
    assert image().line_at(0x1011) is None
    assert image().line_at(0) is None


def test_bits_follow_the_code_directives() -> None:
    assert image().bits == 16
    assert image().modes == ((0x1001, 32), (0x1010, 64))
    assert [image().bits_at(address) for address in (0x1000, 0x1001, 0x100F, 0x1010)] == [16, 32, 32, 64]


def test_the_digest_is_of_the_bytes_alone() -> None:
    again = assemble_text("cli; .code32; push %ebx; nop; .balign 16; .code64; hlt", bits=16, org=0x1000)
    assert again.sha256 == image().sha256
    assert len(image().sha256) == 64
