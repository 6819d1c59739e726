"""Entry lists of every shape under stubs that have Linux's shapes, assembled from sources of our own."""

from __future__ import annotations

import argparse
import json
import subprocess
from pathlib import Path

import pytest

from emu.cli_kernel import add_kernel_commands, kernel_scene
from emu.errors import EXIT_FINDINGS, KjumpError
from emu.journey.journey import Journey
from emu.journey.list_runs import ListBench
from emu.journey.list_shapes import SHAPES
from emu.kernelfile import StubForm, find_stub

pytestmark = [pytest.mark.oracle("as", "ld"), pytest.mark.slow]
STUBS = Path(__file__).parent / "stubs"
SMALL = {"ram": "24M", "target": "2M@16M"}


def classic(folder: Path, bits: int) -> Path:
    """A vmlinux that holds the classic shape and nothing else."""
    made, target = folder / f"classic{bits}.o", folder / f"vmlinux{bits}"
    subprocess.run(["as", f"--{bits}", "-o", made, STUBS / f"shape_classic_{bits}.S"], check=True)
    emulation, text = ("elf_x86_64", "0xffffffff81000000") if bits == 64 else ("elf_i386", "0xc1000000")
    subprocess.run(
        ["ld", "-m", emulation, "-Ttext", text, "-e", "0", "--build-id=none", "-o", target, made], check=True
    )
    return target


def later(folder: Path) -> Path:
    made = folder / "relocate_kernel_64.o"
    subprocess.run(["as", "--64", "-o", made, STUBS / "shape_6_14.S"], check=True)
    return made


@pytest.fixture(scope="module", params=["classic i386", "classic i386 PAE", "classic x86_64", "6.14 x86_64"])
def bench(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ListBench:
    folder = tmp_path_factory.mktemp("shapes")
    if request.param == "6.14 x86_64":
        path = later(folder)
    else:
        path = classic(folder, 64 if request.param == "classic x86_64" else 32)
    stub = find_stub(path)
    assert request.param.startswith(stub.form)
    pae = {"arch": "i386-pae", "pae_back": True} if request.param.endswith("PAE") else {}
    return ListBench(kernel_scene(path, stub, **SMALL, **pae))  # type: ignore[arg-type]


@pytest.mark.parametrize("shape", SHAPES)
def test_there_and_back(bench: ListBench, shape: str) -> None:
    run = bench.run(shape)
    assert run.findings == ()
    assert run.back is not None


@pytest.mark.parametrize("bits", [32, 64])
def test_the_classic_shapes_go_through_the_journey(tmp_path: Path, bits: int) -> None:
    path = classic(tmp_path, bits)
    stub = find_stub(path)
    assert stub.form is (StubForm.I386 if bits == 32 else StubForm.X86_64)
    assert not stub.slot
    assert Journey(kernel_scene(path, stub, **SMALL)).run().findings == []  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("options", "catalogue"), [({"callee": "ret"}, "B-01"), ({"own_gdt": True}, "B-07")], ids=["ret", "own GDT"]
)
def test_the_classic_shape_has_the_classic_faults(tmp_path: Path, options: dict[str, object], catalogue: str) -> None:
    path = classic(tmp_path, 64)
    result = Journey(kernel_scene(path, find_stub(path), **SMALL, **options)).run()  # type: ignore[arg-type]
    assert [finding.catalogue for finding in result.findings] == [catalogue]


def command(*words: str) -> int:
    parser = argparse.ArgumentParser()
    add_kernel_commands(parser.add_subparsers())
    args = parser.parse_args(["kernel", "run", "--ram", "24M", "--target", "2M@16M", *words])
    status: int = args.action(args)
    return status


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(classic(tmp_path, 32))
    assert command(path, "--lists") == 0
    shown = capsys.readouterr().out
    assert "10 lists there and back, 0 findings" in shown
    assert all(len(line) <= 80 for line in shown.splitlines())
    assert command(path, "--lists", "--json", "--arch", "i386-pae") == EXIT_FINDINGS
    document = json.loads(capsys.readouterr().out)
    assert document["ok"] is False
    assert document["kernel"]["unmodified"] is True
    assert [one["list"] for one in document["lists"]] == list(SHAPES)
    assert {finding["catalogue"] for one in document["lists"] for finding in one["findings"]} == {"B-24"}
    assert command(path, "--lists", "--arch", "i386-pae") == EXIT_FINDINGS
    shown = capsys.readouterr().out
    assert shown.count("FINDING") == 1
    assert "the same with 1, 2, 511" in shown
    with pytest.raises(KjumpError, match="--lists"):
        command(path, "--lists", "--own-gdt")
