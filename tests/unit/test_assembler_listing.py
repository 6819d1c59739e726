from __future__ import annotations

from emu.assembler import asm_report, assemble_text, listing
from emu.assembler.listing import symbol_table

SOURCE = """start:
    mov $10, %eax   # ten
    ret
.balign 8
table: .quad start, table
.skip 200
end:
.set SIZE, end - start
"""


def test_a_listing_shows_address_bytes_source_and_padding() -> None:
    lines = listing(assemble_text(SOURCE, "x.S", org=0x1000)).split("\n")
    assert lines[0] == "# x.S"
    assert lines[1] == "1000  <start>:"
    assert lines[2].split(None, 6)[:6] == ["1000", "b8", "0a", "00", "00", "00"]
    assert lines[2].endswith("2  mov $10, %eax   # ten")
    assert lines[4] == "1006  (2 bytes of padding)"
    assert "1008  <table>:" in lines
    assert lines[-2] == "      ... 192 more bytes"
    assert lines[-1] == "10e0  <end>:"


def test_every_byte_is_listed_or_told() -> None:
    image = assemble_text('a: .ascii "0123456789"\n nop\n .byte 1, 2', "x.S")
    shown = [line.split("  ")[1] for line in listing(image).split("\n") if line[:1] == "0" and "<" not in line]
    assert bytes.fromhex(" ".join(shown)) == image.code


def test_the_symbol_table_is_in_address_order() -> None:
    rows = symbol_table(assemble_text(SOURCE, org=0x1000)).split("\n")
    assert rows == ["1000  start", "1008  table", "10e0  end", "   =  SIZE = 0xe0"]


def test_the_report_says_what_came_out_and_on_request_more() -> None:
    image = assemble_text(SOURCE + '.warning "odd"', "x.S", org=0x1000)
    short = asm_report(image)
    assert short.split("\n")[0] == "x.S: 224 bytes at 0x1000, 64-bit, 3 symbols"
    assert f"sha256 {image.sha256}" in short
    assert "warning: x.S:9: odd" in short
    assert listing(image) in asm_report(image, listing=True)
    assert symbol_table(image) in asm_report(image, symbols=True)
    assert listing(image) not in short
