"""Every known bug that can show is caught by the test that the catalogue names, which passes without it."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from emu.catalogue.command import CATALOGUE, run_catalogue
from emu.catalogue.entries import Entry, Patch, read_catalogue
from emu.catalogue.reproduce import CANNOT_SHOW, CAUGHT, MISSED, reproduce
from emu.catalogue.seams import SEAMS, bug
from emu.catalogue.sources import patched_set
from emu.errors import KjumpError
from emu.kexec.segments import check_segments

ENTRIES = read_catalogue(CATALOGUE)
SHOWN = [entry for entry in ENTRIES if not entry.why_not]


def test_the_catalogue_is_whole() -> None:
    assert [entry.id for entry in ENTRIES] == [f"B-{number:02}" for number in range(1, 57)]
    assert len(SHOWN) >= 35
    assert {entry.seam for entry in ENTRIES if entry.seam} == set(SEAMS)


@pytest.mark.parametrize("entry", SHOWN, ids=lambda entry: entry.id)
def test_a_known_bug_is_caught(entry: Entry) -> None:
    verdict = reproduce(entry)
    assert verdict.why == ""
    assert verdict.status == CAUGHT
    assert verdict.passes_without
    assert verdict.finding is not None


def test_most_bugs_of_the_stub_are_named_by_the_finding() -> None:
    assert sum(entry.named for entry in ENTRIES) >= 20


def test_a_bug_that_is_not_there_is_missed() -> None:
    harmless = Patch("asm/x86_64/relocate_new_kernel.S", "    cld  ", "    cld; nop # ")
    verdict = reproduce(Entry("B-99", "none", "nobody", test="trial preserve x86_64", patch=(harmless,)))
    assert (verdict.status, verdict.why) == (MISSED, "the test passes with the bug")


def test_a_test_that_fails_anyway_catches_nothing() -> None:
    broken = Patch("asm/x86_64/relocate_new_kernel.S", "    xorl    %r9d, %r9d\n", "")
    verdict = reproduce(Entry("B-99", "none", "nobody", test="trial plain x86_64", setup=(broken,)))
    assert verdict.status == MISSED
    assert verdict.why.startswith("the test fails without the bug: r9")
    assert not verdict.passes_without


def test_a_finding_that_names_another_entry_is_not_enough() -> None:
    entry = next(entry for entry in ENTRIES if entry.id == "B-42")
    verdict = reproduce(Entry("B-99", entry.bug, "nobody", test=entry.test, seam=entry.seam, named=True))
    assert verdict.status == MISSED
    assert "names B-42" in verdict.why


def test_what_cannot_show_says_why() -> None:
    entry = next(entry for entry in ENTRIES if entry.why_not)
    verdict = reproduce(entry)
    assert (verdict.status, verdict.why) == (CANNOT_SHOW, entry.why_not)


def test_a_patch_that_no_longer_fits_is_an_error() -> None:
    with pytest.raises(KjumpError, match=r"occurs 0 times.*bring the catalogue up to date"):
        patched_set("i386", [Patch("asm/i386/purgatory.S", "no such line", "")])


def test_a_seam_is_closed_behind_its_test() -> None:
    before = check_segments.__globals__["_check_overlaps"]
    with bug("overlaps accepted"):
        assert check_segments.__globals__["_check_overlaps"] is not before
    assert check_segments.__globals__["_check_overlaps"] is before
    with pytest.raises(KjumpError, match="no seam is called"), bug("no such"):
        pass


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[[bug]]\nid = 'B-1'\n", "id, bug and source are needed"),
        ("[[bug]]\nid = 'B-1'\nbug = 'x'\nsource = 'y'\nwhy = 'z'\n", "unknown key why"),
        ("[[bug]]\nid = 'B-1'\nbug = 'x'\nsource = 'y'\n", "either test or why_not"),
        ("[[bug]]\nid = 'B-1'\nbug = 'x'\nsource = 'y'\nwhy_not = 'z'\n" * 2, "B-1 is there twice"),
        ("[[bug]\n", "is no TOML"),
        ("[[bug]]\nid = 'B-1'\nbug = 'x'\nsource = 'y'\ntest = 't'\npatch = [{ file = 'f' }]\n", "file, old and new"),
    ],
)
def test_a_bad_catalogue_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "catalogue.toml"
    path.write_text(text)
    with pytest.raises(KjumpError, match=words):
        read_catalogue(path)


def test_the_document_has_what_it_must(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_catalogue(["B-20", "B-42"], as_json=True, jobs=1) == 0
    document = json.loads(capsys.readouterr().out)
    assert (document["entries"], document["caught"], document["cannot_show"], document["missed"]) == (2, 1, 1, 0)
    caught = document["bugs"][1]
    assert caught["passes_without"] is True
    assert caught["finding"]["names"] == "B-42"
    with pytest.raises(KjumpError, match="no entry B-77"):
        run_catalogue(["B-77"])
