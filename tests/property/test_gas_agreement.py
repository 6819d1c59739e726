"""Our assembler and GNU as on the same text: the same bytes, or the same meaning, or a clean refusal.

The check that stands behind it is tried on the same forms, with every bit of their encodings flipped.
"""

from __future__ import annotations

import random
import re
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection

from emu.assembler import Image, assemble, assemble_text, decode_one, disassemble, load_object
from emu.assembler.expression import Expression, Number, bind, evaluate
from emu.assembler.operands import Immediate, Instruction, Memory, parse_instruction
from emu.assembler.source import Position, Statement
from emu.assembler.verify import MismatchError, check
from emu.errors import AssemblyError
from emu.suite.claim_file import PROGRAM, read_header

ROOT = Path(__file__).resolve().parents[2]
FORMS = Path(__file__).with_name("gas_forms.txt")
BITS = (16, 32, 64)
CLAIMS = sorted(ROOT.glob("asm/tests/*.S"))
SOURCES = sorted({*ROOT.glob("asm/*/*.S"), *ROOT.glob("kernels/*.S")} - set(CLAIMS))
ORG = 0x1000000
MOST_REFUSED = 0.02
PREFIX_BYTES = bytes.fromhex("666726f2f3f02e64484144")
HARMLESS = re.compile(r"^(?:mov\w? %\w+, %[c-gs]s|testb \$-?0x80|str[wlq] |rdrand|lss|mov\w? %[c-gs]s)")
"""Texts that a flipped bit may turn into one another, because the processor does the same for both."""
PREFIX_WORDS = (
    "rep",
    "repe",
    "repz",
    "repne",
    "repnz",
    "lock",
    "notrack",
    "data16",
    "data32",
    "addr32",
    "rex.w",
    "rex64",
    "cs",
)
_NO_INDEX = re.compile(r"\(, %riz, [1248]\)|, %riz, [1248]")


def forms(bits: int) -> list[str]:
    """The forms that exist in ``bits``-bit code, registers put in."""
    address = {16: "%bx", 32: "%edi", 64: "%rdi"}[bits]
    whole = "%rax" if bits == 64 else "%eax"
    found: list[str] = []
    sizes: set[int] = set()
    for line in FORMS.read_text().splitlines():
        if line.startswith("["):
            sizes = {int(word) for word in line[1 : line.index("]")].split()}
        elif line and not line.startswith("#") and bits in sizes:
            found.append(line.replace("{D}", address).replace("{A}", whole))
    return found


@dataclass(frozen=True)
class Linked:
    """What GNU as and ld made of a source: the flat text section and its symbols."""

    code: bytes
    symbols: dict[str, int]


def run(*command: str | Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(word) for word in command], capture_output=True, text=True, check=False)


def link(folder: Path, object_file: Path, bits: int, org: int) -> Linked:
    """Link ``object_file`` at ``org``; its text section as bytes."""
    linked = folder / "out.elf"
    emulation = "elf_x86_64" if bits == 64 else "elf_i386"
    done = run("ld", "-m", emulation, f"-Ttext={org:#x}", "-e", "0", "--no-warnings", "-o", linked, object_file)
    assert done.returncode == 0, done.stderr
    with linked.open("rb") as file:
        elf = ELFFile(file)
        table = elf.get_section_by_name(".symtab")
        assert isinstance(table, SymbolTableSection)
        symbols = {str(one.name): int(one["st_value"]) for one in table.iter_symbols()}
        text = elf.get_section_by_name(".text")
        return Linked(text.data(), symbols)


def gas(folder: Path, texts: list[str], bits: int) -> list[tuple[int, bytes] | None]:
    """Address and bytes of each text, assembled by GNU as in one run; None for those that it refuses."""
    source, made = folder / "in.s", folder / "in.o"
    live = list(range(len(texts)))
    for _ in range(5):
        rows = [f".code{bits}"]
        for number in live:
            rows += [".org . + 8", f"from{number}: {texts[number]}", f"to{number}:"]
        source.write_text("\n".join(rows) + "\n")
        done = run("as", "--64" if bits == 64 else "--32", "-o", made, source)
        wrong = {(int(line) - 2) // 3 for line in re.findall(r"in\.s:(\d+): Error", done.stderr)}
        if not wrong:
            break
        live = [number for position, number in enumerate(live) if position not in wrong]
    assert done.returncode == 0, done.stderr
    linked = link(folder, made, bits, 0)
    found: list[tuple[int, bytes] | None] = [None] * len(texts)
    for number in live:
        start, end = linked.symbols[f"from{number}"], linked.symbols[f"to{number}"]
        found[number] = (start, linked.code[start:end])
    return found


def ours(text: str, bits: int, org: int) -> bytes | None:
    """Our bytes, or None for a clean refusal."""
    try:
        return assemble_text(text, bits=bits, org=org).code
    except AssemblyError:
        return None


def meaning(code: bytes, address: int, bits: int) -> list[str]:
    return [one.text for one in disassemble(code, address, bits)]


def test_there_are_forms_enough() -> None:
    assert sum(len(forms(bits)) for bits in BITS) > 1500
    assert len({text for bits in BITS for text in forms(bits)}) > 500
    assert all(len(set(forms(bits))) == len(forms(bits)) for bits in BITS)


@pytest.mark.oracle("as", "ld")
@pytest.mark.parametrize("bits", BITS)
def test_each_form_is_equal_or_means_the_same_or_is_refused(
    bits: int, tmp_path: Path, record_property: Callable[[str, object], None]
) -> None:
    texts = forms(bits)
    equal, same, refused, wrong = 0, 0, [], []
    for text, theirs in zip(texts, gas(tmp_path, texts, bits), strict=True):
        mine = ours(text, bits, theirs[0] if theirs else 0)
        if mine is None:
            refused.append(text)
        elif theirs is None:
            wrong.append(f"{text}: GNU as refuses it")
        elif mine == theirs[1]:
            equal += 1
        elif meaning(mine, theirs[0], bits) == meaning(theirs[1], theirs[0], bits):
            same += 1
        else:
            wrong.append(f"{text}: {mine.hex()}, GNU as {theirs[1].hex()}")
    record_property("agreement", f"{equal} equal, {same} mean the same, {len(refused)} refused")
    assert wrong == []
    assert len(refused) <= MOST_REFUSED * len(texts), refused
    assert equal >= (1 - MOST_REFUSED) * len(texts) - same


OPERANDS = (
    "%eax %rax %al %ax %ebx %r9 %r10d %r11b %sil %ah %cx $1 $300 $-1 $0x80 $0xffffffff (%eax) 4(%rax,%rbx,8) %ds %es "
    "%cr3 %dr7 %st(1) %st %xmm0 %mm1 *%rax *%eax *(%rbx) *(%ebx) %gs:4 8(%rip) (%bx,%si) 0x200(%bp) %cl .+4 .+400 %dx "
    "0x1234 (%ebp) (%rsp) %ss:(%rbp) %es:(%edi) (%esi) %ds:(%rsi) -1(,%ecx,2)"
)
PREFIXES = ("", "", "", "", "rep ", "lock ", "data16 ", "addr32 ", "notrack ", "cs ", "repne ")


@pytest.mark.oracle("as", "ld")
@pytest.mark.parametrize("bits", BITS)
def test_mnemonics_with_operands_drawn_at_random_give_no_wrong_byte(bits: int, tmp_path: Path) -> None:
    noise = random.Random(bits)  # noqa: S311 - instructions, not keys
    mnemonics = sorted({text.split()[0] for text in forms(bits) if not text.startswith(".")} - set(PREFIX_WORDS))
    operands = OPERANDS.split()
    accepted: dict[str, bytes] = {}
    for _ in range(6000):
        drawn = [noise.choice(operands) for _ in range(noise.choice((0, 1, 1, 2, 2, 2, 3)))]
        text = f"{noise.choice(PREFIXES)}{noise.choice(mnemonics)} {', '.join(drawn)}".strip()
        mine = ours(text, bits, 0x100)
        if mine is not None:
            accepted[text] = mine
    texts = sorted(accepted)
    wrong = []
    for text, theirs in zip(texts, gas(tmp_path, texts, bits), strict=True):
        mine = ours(text, bits, theirs[0]) if theirs else None
        if (
            theirs
            and mine != theirs[1]
            and meaning(mine or b"", theirs[0], bits) != meaning(theirs[1], theirs[0], bits)
        ):
            wrong.append(f"{text}: {(mine or b'').hex()}, GNU as {theirs[1].hex()}")
    assert wrong == []
    assert len(texts) > 100


def random_expression(noise: random.Random, depth: int) -> str:
    if depth == 0 or noise.random() < 0.2:
        number = noise.choice((0, 1, 2, 7, 8, 63, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFFFFFF, noise.getrandbits(62)))
        return noise.choice((str(number), hex(number), f"0{number:o}"))
    if noise.random() < 0.2:
        return f"{noise.choice('-~')}({random_expression(noise, depth - 1)})"
    left, right = random_expression(noise, depth - 1), random_expression(noise, depth - 1)
    operator = noise.choice(("+", "-", "*", "|", "&", "^", "==", "!=", "<", "<=", ">", ">=", "&&", "||"))
    if noise.random() < 0.5:
        return f"({left}) {operator} {right}"
    return f"{left}{operator}({right})"


@pytest.mark.oracle("as", "ld")
def test_expressions_have_the_values_that_gas_gives_them(tmp_path: Path) -> None:
    noise = random.Random(4)  # noqa: S311 - expressions, not keys
    texts = [f".quad {random_expression(noise, noise.randint(1, 4))}" for _ in range(600)]
    texts += [f".quad {a} {op} {b}" for op in ("<<", ">>") for a in (1, -1, 0x1234) for b in (0, 1, 63)]
    texts += [f".quad {a} {op} {b}" for op in "/%" for a in (7, -7) for b in (2, 3)]
    found = gas(tmp_path, texts, 64)
    different = [
        (text, theirs[1].hex())
        for text, theirs in zip(texts, found, strict=True)
        if theirs is not None and ours(text, 64, 0) != theirs[1]
    ]
    assert different == []
    assert sum(theirs is not None for theirs in found) > 500


def variants() -> Iterator[tuple[Path, int, dict[str, int], int, str]]:
    for path in SOURCES:
        words = path.read_text()
        bits = 64 if re.search(r"%r(?:[abcd]x|[sd]i|[sb]p|ip|\d)", words) else 32
        name = "PAE" if bits == 32 else "LA57"
        for value in (0, 1):
            yield path, bits, {name: value}, ORG, f"{name}={value}"
    for path in CLAIMS:
        for mode in read_header(path).modes:
            yield path, mode.assembled_as, mode.defines, PROGRAM, mode


@pytest.mark.oracle("as", "ld")
@pytest.mark.parametrize(
    ("path", "bits", "defines", "org"),
    [pytest.param(*one[:4], id=f"{one[0].relative_to(ROOT)}-{one[4]}") for one in variants()],
)
def test_every_source_is_the_same_under_gas(
    path: Path, bits: int, defines: dict[str, int], org: int, tmp_path: Path
) -> None:
    include = ROOT / "asm" / "include"
    made = tmp_path / "out.o"
    size = "--64" if bits == 64 else "--32"
    symbols = [word for name, value in defines.items() for word in ("--defsym", f"{name}={value}")]
    kernels = ROOT / "kernels"
    done = run("as", size, "-I", include, "-I", path.parent, "-I", kernels, *symbols, "-o", made, path)
    assert done.returncode == 0, done.stderr
    theirs = link(tmp_path, made, bits, org)
    image = assemble(path, bits=bits, org=org, defines=defines, include=[include, kernels])
    assert len(image.code) == len(theirs.code)
    assert different_bytes(image, theirs.code) == []
    shared = image.symbols.keys() & theirs.symbols.keys()
    assert {one: image.symbols[one] for one in shared} == {one: theirs.symbols[one] for one in shared}
    assert len(shared) > 0.9 * len([name for name in image.symbols if not name.startswith(".L")])


def different_bytes(image: Image, theirs: bytes) -> list[str]:
    """Where the two differ outside alignment padding."""
    found: list[str] = []
    for line in image.lines:
        start = line.address - image.org
        if image.code[start : start + line.size] != theirs[start : start + line.size]:
            found.append(f"{line.file}:{line.line} at {image.symbol_at(line.address)}")
    return found


def test_the_comparison_of_sources_finds_one_changed_byte() -> None:
    image = assemble_text("nop\n.balign 8\nret", "x.S")
    assert different_bytes(image, image.code[:1] + bytes(7) + image.code[8:]) == []
    assert different_bytes(image, b"\xcc" + image.code[1:]) == ["x.S:1 at 0x0"]


MODULE = """
    .text
    .globl  relocate_kernel
relocate_kernel:
    movl    saved, %eax
    call    inner
    jmp     relocate_kernel
inner:
    movl    $table, %ecx
    ret
    .data
    .balign 8
saved:
    .long   1
table:
    .quad   relocate_kernel, saved
    .bss
area:
    .skip   64
"""


@pytest.mark.oracle("as")
@pytest.mark.parametrize("version", [4, 5])
@pytest.mark.parametrize("bits", [32, 64])
def test_an_object_from_gas_has_its_symbols_lines_and_relocations(bits: int, version: int, tmp_path: Path) -> None:
    source, made = tmp_path / "stub.S", tmp_path / "stub.o"
    text = MODULE.replace(".quad", ".long") if bits == 32 else MODULE.replace("saved, %eax", "saved(%rip), %eax")
    source.write_text(text)
    size = "--64" if bits == 64 else "--32"
    done = run("as", size, f"--gdwarf-{version}", "-o", made, source)
    assert done.returncode == 0, done.stderr
    image = load_object(made, org=0x100000)
    data = image.symbols["saved"] - image.org
    assert image.code[data] == 1
    assert int.from_bytes(image.code[data + 4 : data + 8], "little") == 0x100000
    assert image.symbols["area"] + 64 == image.end
    inner = image.line_at(image.symbols["inner"])
    assert inner is not None
    assert inner.line == 1 + text.split("\n").index("    movl    $table, %ecx")
    assert image.source_text(inner) == "    movl    $table, %ecx"
    moved = disassemble(image.code, image.org, bits)[1]
    assert moved.operands == f"{image.symbols['inner']:#x}"


def operand_values(instruction: Instruction, here: int) -> list[int | None]:
    values: list[int | None] = []
    for operand in instruction.operands:
        value: Expression | None = operand.value if isinstance(operand, Immediate) else None
        if isinstance(operand, Memory):
            value = operand.displacement
        bound = bind(value, lambda name: Number(here) if name == "." else None) if value is not None else None
        values.append(evaluate(bound, lambda _: 0) if bound is not None else None)
    return values


def damaged(code: bytes) -> Iterator[bytes]:
    for bit in range(8 * len(code)):
        flipped = bytearray(code)
        flipped[bit // 8] ^= 1 << bit % 8
        yield bytes(flipped)
    for byte in PREFIX_BYTES:
        yield bytes((byte,)) + code


def same_to_the_processor(one: str, other: str) -> bool:
    """Whether two decoded texts differ only in spelling: sal for shl, an index that is none."""
    plain = [re.sub(r"^sal", "shl", _NO_INDEX.sub("", text)) for text in (one, other)]
    plain = [re.sub(r":(?=,|$)", ":0", text) for text in plain]
    if plain[0] == plain[1]:
        return True
    sizeless = {re.sub(r"%[re]?([abcd]x|[sd]i|[sb]p)", r"%\1", text.replace("$-", "$")) for text in plain}
    sizeless = {re.sub(r"^(\w+?)[wlq]? ", r"\1 ", text) for text in sizeless}
    return len(sizeless) == 1 and all(HARMLESS.match(text) for text in plain)


@pytest.mark.parametrize("bits", [16, 32, 64])
def test_no_flipped_bit_and_no_added_prefix_passes_the_check(bits: int) -> None:
    org, tried, passed = 0x1000, 0, []
    for text in forms(bits):
        if text.startswith("."):
            continue
        try:
            code = assemble_text(text, bits=bits, org=org).code
        except AssemblyError:
            continue
        instruction = parse_instruction(Statement(text, Position("x", 1, 1, text)))
        values = operand_values(instruction, org)
        good = decode_one(code, org, bits).text
        for other in damaged(code):
            found = decode_one(other, org, bits)
            if found.size != len(other) or same_to_the_processor(found.text, good):
                continue
            tried += 1
            try:
                check(instruction, values, other, org, bits)
            except MismatchError:
                continue
            passed.append(f"{text}: {other.hex()} is {found.text}, not {good}")
    assert passed == []
    assert tried > 5000
