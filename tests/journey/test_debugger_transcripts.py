"""A transcript of each architecture's jump: the stops that matter, and what the debugger says there."""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import dataclass

import pytest

from emu import resources
from emu.debugger.repl import Repl
from emu.debugger.session import Session
from emu.kexec.arch import Arch

from .conftest import small_scene

PAGES = 671
"""Pages of the low region and a target area of 2 MiB."""


@dataclass(frozen=True)
class Words:
    """What is said of one architecture: its mode with paging and without, the first level of a walk, A's direct map."""

    paged: str
    flat: str
    walk: str
    first_level: str
    direct: str
    entries: int


WORDS = {
    Arch.I386: Words("32-bit protected 2-level", "32-bit protected CPL0", "2-level paging", "PDE ", "0xc17ff", 678),
    Arch.I386_PAE: Words("32-bit protected PAE", "32-bit protected CPL0", "PAE paging", "PDPTE", "0xc17ff", 678),
    Arch.X86_64: Words("64-bit long 4-level", "64-bit long 4-level", "4-level paging", "PML4E", "0xffff8880017ff", 679),
    Arch.X86_64_LA57: Words(
        "64-bit long 5-level", "64-bit long 5-level", "5-level paging", "PML5E", "0xffff8880017ff", 679
    ),
}


@dataclass(frozen=True)
class Walker:
    """A prompt on one architecture, and what to expect of it."""

    repl: Repl
    arch: Arch
    words: Words

    def say(self, *lines: str) -> str:
        """The output of several lines; none may fail."""
        before = self.repl.failed
        out = "".join(self.repl.output_of(line) for line in lines)
        assert self.repl.failed == before, out
        return out

    def stub_line(self, wanted: str) -> str:
        """``relocate_new_kernel.S:N`` of the first source line that contains ``wanted``."""
        folder = "i386" if self.arch.bits == 32 else "x86_64"
        text = (resources.asm_dir() / folder / "relocate_new_kernel.S").read_text(encoding="utf-8")
        for number, line in enumerate(text.splitlines(), 1):
            if re.match(rf"\s+{wanted}", line):
                return f"relocate_new_kernel.S:{number}"
        raise AssertionError(f"no line of the stub is {wanted}")


@pytest.fixture(scope="module", params=list(Arch))
def recorded(request: pytest.FixtureRequest) -> Walker:
    session = Session(small_scene(request.param, ram="24M"))  # no hole in RAM: the addresses below are the allocator's
    repl = Repl(session, stdin=io.StringIO(), stdout=io.StringIO())
    return Walker(repl, request.param, WORDS[request.param])


@pytest.fixture
def walker(recorded: Walker) -> Walker:
    recorded.say("delete", "goto transition suspend")
    return recorded


def head(text: str) -> str:
    """The last stop's head line, with its reason where it has a line of its own."""
    start = text.rindex("\n-- ") + 1 if "\n-- " in text else text.index("-- ")
    lines = text[start:].splitlines()
    return "\n".join(lines[:2])


def test_the_beginning_is_in_as_own_mapping(walker: Walker) -> None:
    stop = walker.say("goto transition suspend")
    assert "-- suspend A->B" in head(stop)
    assert walker.words.paged in head(stop)
    assert "relocate_new_kernel" in stop
    assert f"pc {walker.words.direct}" in walker.say("info where")
    assert "page p:0x17ff000 control" in walker.say("info where")
    jump = walker.say("jumpbuf")
    assert re.search(r"^sequence +1 ", jump, re.MULTILINE)
    assert re.search(r"^resume_slot +(p:0x0|0x0|none|0)", jump, re.MULTILINE)


def test_the_cr3_switch(walker: Walker) -> None:
    before = walker.say("walk")
    stop = walker.say("catch control cr3", "c")
    assert re.search(r"catchpoint \d+: cr3 0x\w+ -> 0x17fa000", stop)
    assert walker.words.paged in head(stop)
    after = walker.say("walk")
    assert walker.words.walk in after
    assert "CR3 0x17fa000: tables begin at p:0x17fa000" in after
    assert after.count(walker.words.first_level) >= 1
    assert "is p:0x17ff0" in after
    assert "0x17fa000" not in before


def test_one_step_back_takes_mode_and_walk_back_too(walker: Walker) -> None:
    walker.say("catch control cr3", "c")
    walker.say("rsi")
    assert "0x17fa000" not in walker.say("walk")
    assert "CR3 0x17fa000" in walker.say("si", "walk")


def test_identity_mapped(walker: Walker) -> None:
    stop = walker.say("tb identity_mapped", "c")
    assert "identity_mapped" in stop
    where = walker.say("info where")
    assert "pc 0x17ff0" in where
    assert "page p:0x17ff000 control" in where
    assert walker.words.paged in where
    assert "supervisor execute: allowed" in walker.say("walk $pc")


def test_paging_off(walker: Walker) -> None:
    stop = walker.say("tb identity_mapped", "c", "catch control cr0", "c")
    assert "cr0 0x" in stop
    assert walker.words.flat in head(stop)
    walk = walker.say("walk")
    if walker.arch.bits == 32:
        assert "paging is off: linear 0x17ff0" in walk
        assert "CPL0 IF=0" in head(stop)
        back = walker.say("rsi", "walk")
        assert walker.words.walk in back
        assert walker.words.paged in head(back)
    else:
        assert walker.words.walk in walk


def test_the_first_swap(walker: Walker) -> None:
    stop = walker.say(f"tb {walker.stub_line('rep +movs')}", "c")
    assert walker.words.flat in head(stop)
    assert re.search(rf"list +entry 3/{walker.words.entries}  SRC +p:0x17f\w+ <-> p:0x0\b", stop)
    assert f"0 of {PAGES} pages moved" in stop
    assert "0 of 4,096 bytes" in stop
    listed = walker.say("kimage")
    assert re.search(r"^> +3  p:0x17f\w+ +0x0*17f\w+008  SRC", listed, re.MULTILINE)
    word = walker.arch.word
    assert f"{word * 5:,} of 4,096 bytes" in walker.say("iter 5")
    assert ".5" in head(walker.say("iter 1", "rsi", "iter 5"))


def test_bs_entry(walker: Walker) -> None:
    stop = walker.say("tb purgatory_start", "c")
    assert "-- suspend A->B" in head(stop)
    assert walker.words.flat in head(stop)
    assert "purgatory" in stop
    assert "pages moved" not in stop
    assert re.search(r"^sequence +1 ", walker.say("jumpbuf"), re.MULTILINE)
    assert "p:0x92000" in walker.say("info where")


def test_b_is_awake_and_has_stored_its_slot(walker: Walker) -> None:
    walker.say("goto transition return")
    jump = walker.say("jumpbuf")
    assert re.search(r"^sequence +2 ", jump, re.MULTILINE)
    assert re.search(r"^resume_slot +p:0x10\w+", jump, re.MULTILINE)
    assert "B| awake" in walker.say("console")


def test_the_return(walker: Walker) -> None:
    stop = walker.say("goto transition return", "tb after_jump", "c")
    assert "-- return B->A" in head(stop)
    assert walker.words.paged in head(stop)
    assert "after_jump" in stop
    walk = walker.say("walk")
    assert walker.words.walk in walk
    jump = walker.say("jumpbuf")
    assert re.search(r"^sequence +2 ", jump, re.MULTILINE)
    assert "unchanged since return began" in jump
    assert f"{PAGES} pages" in walker.say("kimage")
    assert re.search(r"^sequence +3 ", walker.say("goto end", "jumpbuf"), re.MULTILINE)


@pytest.mark.parametrize("place", ["tb identity_mapped", "tb swap_pages", "tb purgatory_start"])
def test_there_and_back_is_the_same_place(walker: Walker, place: str) -> None:
    walker.say(place, "c")
    here = walker.say("regs", "walk", "info where")
    walker.say("si 7", "rsi 7")
    assert same(here) == same(walker.say("regs", "walk", "info where"))


def same(text: str, strip: Callable[[str], str] = lambda line: line.replace(" *", "").replace(" ", "")) -> list[str]:
    """Lines without the marks of what changed."""
    return [strip(line) for line in text.splitlines()]
