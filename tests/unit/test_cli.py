"""The command from outside: exit statuses, one clear line for bad input, JSON that is JSON."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from emu.cli import main
from emu.resources import asm_dir

SMALL = ["--ram", "24M", "--target", "2M@16M"]


def run(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    status = main(list(words))
    captured = capsys.readouterr()
    return status, captured.out, captured.err


@pytest.mark.parametrize("arch", ["i386", "i386-pae", "x86_64", "x86_64-la57"])
def test_json_is_one_document_with_what_was_promised(arch: str, capsys: pytest.CaptureFixture[str]) -> None:
    status, out, err = run(capsys, "run", "--arch", arch, "--json", *SMALL)
    document = json.loads(out)
    assert (status, err, document["ok"]) == (0, "", True)
    assert {"arch", "transfer", "handoff", "seed", "ok"} <= document.keys()
    assert [one["name"] for one in document["transitions"]] == ["load", "suspend", "return"]
    counts = {"instructions", "rep_iterations", "pages_moved", "pages_compared", "findings"}
    for one in document["transitions"]:
        assert {"name", "from", "to"} | counts <= set(one)
    assert document["transitions"][1]["pages_moved"] > 600
    assert document["transitions"][1]["pages_compared"] > 6000


def test_the_screen_fits_eighty_columns_and_says_what_was_compared(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "run", *SMALL)
    lines = out.splitlines()
    assert status == 0
    assert max(map(len, lines)) <= 99
    assert any("compared in each jump" in line for line in lines)
    assert lines[-1].startswith("next: kjump ")
    assert "\x1b" not in out


def test_until_stops_early_and_says_what_was_not_run(capsys: pytest.CaptureFixture[str]) -> None:
    status, out, _ = run(capsys, "run", "--until", "suspend", *SMALL)
    assert status == 0
    assert "return     not run" in out


def test_the_same_run_twice_gives_the_same_trace(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    traces = [tmp_path / "one", tmp_path / "two"]
    for trace in traces:
        assert run(capsys, "run", "--trace", str(trace), *SMALL)[0] == 0
    one, two = (trace.read_bytes() for trace in traces)
    assert one == two
    assert one.count(b"\n") > 500
    assert all(json.loads(line) for line in one.splitlines())


def test_a_finding_is_exit_status_1_and_names_a_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source = (asm_dir() / "x86_64" / "relocate_new_kernel.S").read_text(encoding="utf-8")
    broken = source.replace("    popq    %rbx\n    ret", "    popq    %rbx\n    incq    %rbx\n    ret")
    assert broken != source
    stub = tmp_path / "mine.S"
    stub.write_text(broken, encoding="utf-8")
    status, out, _ = run(capsys, "run", "--stub", str(stub), *SMALL)
    assert status == 1
    assert "FINDING 1" in out
    assert f"kjump run --arch x86_64 --stub {stub}" in out
    assert "departs from the built-in stub" in " ".join(out.split())
    assert "`incq %rbx` is not in the built-in stub" in " ".join(out.split())


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["run", "--arch", "sparc"], "no architecture is called sparc"),
        (["run", "nowhere"], "no journey is called nowhere"),
        (["run", "--ram", "16M"], "too small"),
        (["run", "--ram", "lots"], "is no size"),
        (["run", "--target", "4M@200M"], "begin and end in RAM"),
        (["run", "--transfer", "teleport"], "teleport"),
        (["run", "--handoff", "mail"], "mail"),
        (["run", "--hostile", "rude"], "rude"),
        (["run", "--stub", "missing.S"], "no such file"),
        (["run", "--until", "lunch"], "lunch"),
        (["run", "--frob"], "--frob"),
        (["frob"], "frob"),
        (["bench", "nothing"], "no benchmark is called nothing"),
        (["asm", "missing.S"], "no such file"),
    ],
)
def test_bad_input_is_one_line_and_exit_status_2(
    words: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    status, out, err = run(capsys, *words)
    assert (status, out) == (2, "")
    assert said in err
    assert err.count("\n") == 1
    assert err.startswith("kjump: ")


def test_a_file_that_is_no_elf_a_syntax_error_and_odd_toml(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    text = tmp_path / "stub.o"
    text.write_text("this is no object\n", encoding="utf-8")
    wrong = tmp_path / "wrong.S"
    wrong.write_text("relocate_new_kernel:\n    movq %rax %rbx\n", encoding="utf-8")
    odd = tmp_path / "odd.toml"
    odd.write_text('name = "odd"\ncolour = "blue"\n', encoding="utf-8")
    for words, said in (
        (["run", "--stub", str(text)], "stub.o"),
        (["run", "--stub", str(wrong)], "wrong.S:2:"),
        (["asm", str(wrong)], "wrong.S:2:"),
        (["run", str(odd)], "colour"),
    ):
        status, out, err = run(capsys, *words)
        assert (status, out) == (2, "")
        assert said in err
        assert err.count("\n") <= 2


def test_asm_lists_bytes_lines_and_symbols(capsys: pytest.CaptureFixture[str]) -> None:
    path = asm_dir() / "x86_64" / "jump_entry.S"
    status, out, _ = run(capsys, "asm", str(path), "--listing", "--symbols", "--org", "0x1000")
    assert status == 0
    assert "after_image_save" in out
    assert "48 8d 25" in out


def _processor_seconds(pid: int) -> float:
    """Time of the processor that a child has used so far (proc(5): utime and stime in ticks)."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def test_ctrl_c_is_one_line_and_exit_status_130() -> None:
    command = [sys.executable, "-m", "emu.cli", "run", "--arch", "all", "--plain-strings"]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    while _processor_seconds(child.pid) < 3:  # well under way, however busy the machine is; all of it takes far more
        time.sleep(0.1)
    child.send_signal(signal.SIGINT)
    _, err = child.communicate(timeout=30)
    assert child.returncode == 130
    assert err.strip() == "kjump: interrupted"


def test_an_image_in_no_folder_is_bad_input(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "nowhere" / "image"
    status, out, err = run(capsys, "run", "hibernate", "--image", str(path), *SMALL)
    assert (status, out) == (2, "")
    assert err == f"kjump: {path}: its folder does not exist (name a file in a folder that does)\n"
