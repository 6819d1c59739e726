"""QEMU as a witness: every architecture's way out and way back, and how its runs end."""

from __future__ import annotations

from dataclasses import replace

import pytest

from emu.errors import KjumpError
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch
from emu.oracle.case import Case
from emu.oracle.command import compare_scene
from emu.oracle.compare import Verdict, compare
from emu.oracle.image import build_image
from emu.oracle.machines import Other, probe_case, witness
from emu.oracle.ours import run_ours
from emu.oracle.outcome import Ended
from emu.oracle.qemu import run_qemu
from tests.oracle.conftest import HIGH, patched, with_peer


def beginning_with(code: bytes) -> Case:
    """The probe, which now begins with ``code`` and has its end elsewhere."""
    case = patched(probe_case(Arch.X86_64), HIGH, code)
    return replace(case, end=HIGH + 0x20000, end_phys=HIGH + 0x20000)


needs_qemu = pytest.mark.oracle("qemu-system-x86_64")


@needs_qemu
def test_both_movements_agree(arch: Arch) -> None:
    scene = make_scene(find_journey("jump"), arch=arch, ram="24M", target="2M@16M")
    rows = compare_scene(scene, [witness(Other.QEMU)])
    assert [row.case for row in rows] == [f"{arch} suspend", f"{arch} return"]
    for row in rows:
        assert row.verdict is Verdict.AGREE, row.differences
        assert row.pages == row.pages_equal >= 6000
        assert row.registers >= (65 if arch.word == 8 else 46)


@needs_qemu
@pytest.mark.parametrize(("transfer", "handoff"), [("copy", "page"), ("copy", "stack"), ("reserved", "cmdline")])
def test_other_transfers_agree_too(arch: Arch, transfer: str, handoff: str) -> None:
    scene = make_scene(find_journey("jump"), arch=arch, transfer=transfer, handoff=handoff, ram="24M", target="2M")
    rows = compare_scene(scene, [witness(Other.QEMU)])
    assert [row.case for row in rows] == [f"{arch} suspend", f"{arch} return"]
    for row in rows:
        assert row.verdict is Verdict.AGREE, row.differences
        assert row.pages == row.pages_equal >= 6000


@needs_qemu
def test_what_the_stub_s_exception_handler_prints_is_compared() -> None:
    image = build_image([with_peer(Arch.X86_64, b"\xcc\xc3")], in_place=False)
    ours, theirs = run_ours(image), run_qemu(image)
    assert "vector" in ours.console
    assert ours.console == theirs.console
    assert [row.verdict for row in compare(image, ours, theirs)] == [Verdict.AGREE]


@needs_qemu
def test_a_guest_that_hangs_is_ended() -> None:
    image = build_image([beginning_with(b"\xeb\xfe")], in_place=True)
    run = run_qemu(image, limit=1.0)
    assert (run.ended, run.seconds < 10) == (Ended.HUNG, True)


@needs_qemu
def test_a_triple_fault_is_one_on_both() -> None:
    image = build_image([beginning_with(b"\x0f\x0b")], in_place=True)
    ours, theirs = run_ours(image), run_qemu(image)
    assert (ours.ended, theirs.ended) == (Ended.RESET, Ended.RESET)


def test_a_missing_qemu_is_one_message(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(KjumpError, match="qemu-system-x86_64 is not on PATH"):
        run_qemu(build_image([probe_case(Arch.I386)], in_place=True))
    assert "not on PATH" in witness(Other.QEMU).refuses(Arch.I386)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"rflags": 0x102}, "TF"),
        ({"rflags": 0x202}, "IF set"),
        ({"dr7": 0x401}, "breakpoints"),
        ({"cs.flags": 1 << 22}, "compatibility"),
        ({"cr4": 0x20020}, "PCID"),
    ],
)
def test_a_state_that_cannot_be_begun_with_is_a_reason(changes: dict[str, int], words: str) -> None:
    case = probe_case(Arch.X86_64)
    qemu = witness(Other.QEMU)
    assert qemu.lacks(case) == ""
    assert words in qemu.lacks(replace(case, registers=dict(case.registers) | changes))
