"""A stub in the shape of Linux 6.14's, assembled from a source of our own: the loader, its caller, and the checks."""

from __future__ import annotations

import argparse
import json
import subprocess
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emu.cli_kernel import add_kernel_commands, kernel_scene, run_document
from emu.errors import ImageError, KjumpError
from emu.journey.journey import Journey
from emu.journey.result import RunResult
from emu.journey.scene import Scene
from emu.kernelfile import StubForm, find_stub
from emu.kernelfile.stub_of import OBJECT_CONTEXT

pytestmark = [pytest.mark.oracle("as"), pytest.mark.slow]
SOURCE = Path(__file__).parent / "stubs" / "shape_6_14.S"
PAGES = 671


@pytest.fixture(scope="module")
def assemble(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """The object of the source, with texts replaced, each of which must occur exactly once."""
    folder = tmp_path_factory.mktemp("shape")
    count = iter(range(100))

    def build(*changes: tuple[str, str]) -> Path:
        text = SOURCE.read_text(encoding="utf-8")
        for old, new in changes:
            assert text.count(old) == 1
            text = text.replace(old, new)
        path = folder / f"relocate_kernel_{next(count)}.o"
        subprocess.run(["as", "--64", "-o", path], input=text, text=True, check=True)
        return path

    return build


def small(path: Path, **options: object) -> Scene:
    return kernel_scene(path, find_stub(path), ram="24M", target="2M@16M", **options)  # type: ignore[arg-type]


def run(path: Path, **options: object) -> tuple[Journey, RunResult]:
    journey = Journey(small(path, **options))
    return journey, journey.run()


def test_what_is_found_in_the_object(assemble: Callable[..., Path]) -> None:
    stub = find_stub(assemble())
    assert (stub.form, stub.entry, stub.slot) == (StubForm.X86_64_6_14, 16, True)
    assert stub.saved_context == (OBJECT_CONTEXT, 0x9A)
    assert stub.parts["kexec_va_control_page"] > stub.parts["swap_pages"]
    assert stub.data == stub.parts["saved_rsp"]


@pytest.mark.parametrize("arch", ["x86_64", "x86_64-la57"])
def test_there_and_back(assemble: Callable[..., Path], arch: str) -> None:
    path = assemble()
    journey, result = run(path, arch=arch)
    assert result.findings == []
    assert result.exit_status == 0
    document = run_document(journey, result, find_stub(path))
    kernel = json.loads(json.dumps(document))["kernel"]
    assert kernel["unmodified"] is True
    assert kernel["pages_moved"] == 2 * PAGES
    assert kernel["form"] == "6.14 x86_64"


def test_one_that_gives_up_idt_and_gdt_first(assemble: Callable[..., Path]) -> None:
    given_up = "\tpushq\t$0\n\tpushq\t$0\n\tlidt\t(%rsp)\n\tlgdt\t(%rsp)\n\tadd\t$8, %rsp\n\tpopfq\n"
    path = assemble(("\tpushq\t$0\n\tpopfq\n", given_up))
    assert find_stub(path).form is StubForm.X86_64_6_14
    _, result = run(path)
    assert result.findings == []


@pytest.mark.parametrize("options", [{"callee": "ret"}, {"own_gdt": True}], ids=["ret", "own GDT"])
def test_what_classic_stubs_cannot_take(assemble: Callable[..., Path], options: dict[str, object]) -> None:
    _, result = run(assemble(), **options)
    assert result.findings == []
    assert [one.pages_moved for one in result.transitions] == [0, PAGES, PAGES]


def test_nobody_to_go_back_to(assemble: Callable[..., Path]) -> None:
    _, result = run(assemble(), callee="plain")
    assert result.findings == []
    assert result.not_run == ["return"]
    assert result.transitions[-1].checks["nobody to go back to"] == 0
    assert "B| nowhere to go back" in result.console


def only(result: RunResult) -> tuple[str, str]:
    (finding,) = result.findings
    return finding.kind, finding.catalogue


def test_no_0_under_the_entry_is_b_02(assemble: Callable[..., Path]) -> None:
    _, result = run(assemble(("identity_mapped:\n\tpush\t$0\n", "identity_mapped:\n")), callee="plain")
    assert only(result) == ("no way back", "B-02")


def test_no_slot_is_b_01(assemble: Callable[..., Path]) -> None:
    path = assemble(("\tpush\t%rdx\n\tcall\t*%rdx\n", "\tcall\t*%rdx\n"))
    assert find_stub(path).slot is False
    _, result = run(path, callee="ret")
    assert only(result) == ("next entry", "B-01")


def test_no_gdt_is_b_07(assemble: Callable[..., Path]) -> None:
    path = assemble(("\tmov\t$saved_context, %rax\n\tlgdt\tGDTR_AT(%rax)\n", ""))
    assert find_stub(path).saved_context is None
    _, result = run(path, own_gdt=True)
    assert only(result) == ("guest failed", "B-07")
    assert any("GDTR is" in line for line in result.findings[0].because)
    _, result = run(path)
    assert result.findings == []


def test_a_flipped_byte_is_a_finding(assemble: Callable[..., Path]) -> None:
    path = assemble()
    stub = find_stub(path)

    def flip(moment: str, journey: Journey) -> None:
        if moment == "after load" and journey.loaded is not None:
            at = journey.loaded.image.control_page + stub.parts["swap_pages"]
            journey.machine.ram.write(at, bytes((journey.machine.ram.read(at, 1)[0] ^ 1,)))

    journey = Journey(small(path), observe=flip)
    result = journey.run()
    assert result.findings[0].kind == "stub bytes"
    assert run_document(journey, result, stub)["ok"] is False


def test_what_the_kernel_fills_must_have_names(assemble: Callable[..., Path]) -> None:
    path = assemble(
        ("kexec_pa_swap_page:\t.quad", "kexec_other:\t.quad"),
        (", kexec_pa_swap_page\n", "\n\t.set kexec_pa_swap_page, 8\n"),
    )
    with pytest.raises(ImageError, match="no symbols kexec_pa_swap_page"):
        find_stub(path)


def test_another_word_size_and_hand_off_are_refused(assemble: Callable[..., Path]) -> None:
    path = assemble()
    with pytest.raises(KjumpError, match="has a 64-bit stub"):
        small(path, arch="i386")
    with pytest.raises(ImageError, match="--handoff stack"):
        Journey(replace(small(path), handoff="page"))


def test_the_commands(assemble: Callable[..., Path], capsys: pytest.CaptureFixture[str]) -> None:
    parser = argparse.ArgumentParser()
    add_kernel_commands(parser.add_subparsers())
    path = str(assemble())
    args = parser.parse_args(["kernel", "info", path])
    assert args.action(args) == 0
    assert "6.14 x86_64 form" in capsys.readouterr().out
    args = parser.parse_args(["kernel", "run", path, "--ram", "24M", "--target", "2M@16M", "--json"])
    assert args.action(args) == 0
    assert json.loads(capsys.readouterr().out)["kernel"]["unmodified"] is True
