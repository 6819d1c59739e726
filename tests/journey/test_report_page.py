"""The report of a journey: complete, closed in itself, and shown by a real browser without complaint."""

from __future__ import annotations

import re
import struct
import subprocess
from html.parser import HTMLParser
from pathlib import Path

import pytest

from emu.cli import main
from emu.kexec.arch import Arch
from tests.journey.conftest import changed_copy

SMALL = ["--ram", "24M", "--target", "2M@16M"]
PAIRED = {"html", "head", "body", "table", "tr", "td", "th", "svg", "rect", "figure", "details", "div", "p", "pre"}


class Nesting(HTMLParser):
    """Reads a page and holds that what is opened is closed, in order."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag in PAIRED:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if tag in PAIRED:
            assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


def read_page(path: Path) -> Nesting:
    page = Nesting()
    page.feed(path.read_text(encoding="utf-8"))
    page.close()
    assert page.open == []
    return page


@pytest.fixture(scope="module")
def good(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("report") / "good.html"
    assert main(["run", "--report", str(path), *SMALL]) == 0
    return path


def test_the_page_tells_the_journey_and_fetches_nothing(good: Path) -> None:
    page = read_page(good)
    assert "script" not in page.tags
    assert not [value for name, value in page.attributes if name in {"src", "href", "srcset"}]
    assert "url(" not in good.read_text(encoding="utf-8")
    for words in ("1 load, A", "2 suspend, A → B", "3 return, B → A", "A| all intact", "B| awake, visit 1, sequence 2"):
        assert words in page.text
    assert page.tags.count("svg") == 6


def test_jump_page_fields_that_changed_are_marked_with_what_they_were(good: Path) -> None:
    text = good.read_text(encoding="utf-8")
    last = text[text.rindex("<details") :]
    row = r"<tr( class=\"changed\")?><td class=\"mono\">(\w+)</td><td[^>]*>([^<]*)</td><td[^>]*>([^<]*)"
    rows = re.findall(row, last)
    changed = [(name, now, was) for mark, name, now, was in rows if mark]
    assert ("sequence", "3", "2") in changed
    assert {name for name, _, _ in changed} == {"sequence", "checksum"}
    assert ("", "resume_slot") in [(mark, name) for mark, name, _, _ in rows]


def test_a_finding_is_on_the_page_with_the_line_to_paste(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    slot = '    pushq   %rdx                                # the slot "entry next time", in case the peer only rets\n'
    stub = changed_copy(tmp_path, Arch.X86_64, "relocate_new_kernel.S", [(slot, "")])
    path = tmp_path / "bad.html"
    assert main(["run", "--report", str(path), "--stub", str(stub), *SMALL]) == 1
    look = next(line for line in capsys.readouterr().out.splitlines() if line.startswith(" look"))
    text = read_page(path).text
    assert look.removeprefix(" look").strip() in text
    assert "`pushq %rdx`" in text, "the line that is missing"


def test_a_path_that_cannot_be_written_is_one_line_and_exit_2(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["run", "--report", "/nowhere/report.html", *SMALL]) == 2
    error = capsys.readouterr().err
    assert error.startswith("kjump: /nowhere/report.html: cannot be written")
    assert error.count("\n") == 1


@pytest.mark.oracle("chromium")
@pytest.mark.parametrize(("width", "height"), [(400, 900), (1200, 900)], ids=["phone", "desk"])
def test_a_browser_shows_it_without_an_error(good: Path, tmp_path: Path, width: int, height: int) -> None:
    picture = tmp_path / "page.png"
    quiet = "--disable-gpu --disable-quic --no-first-run --disable-background-networking --disable-component-update"
    done = subprocess.run(
        [
            *("chromium", "--headless", "--no-sandbox", *quiet.split(), "--disable-sync", "--enable-logging=stderr"),
            *(f"--user-data-dir={tmp_path / 'profile'}", f"--window-size={width},{height}"),
            *(f"--screenshot={picture}", good.as_uri()),
        ],
        capture_output=True,
        text=True,
        timeout=90,
        check=True,
    )
    assert not [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    data = picture.read_bytes()
    assert struct.unpack(">II", data[16:24]) == (width, height)
    assert len(data) > 20_000, "an empty page is smaller"
