"""KVM as a witness where it is usable, and a reason where it is not."""

from __future__ import annotations

from pathlib import Path

import pytest

from emu.errors import KjumpError
from emu.kexec.arch import Arch
from emu.oracle import kvm
from emu.oracle.compare import Verdict
from emu.oracle.fuzz import fuzz
from emu.oracle.image import build_image
from emu.oracle.machines import Other, kvm_refuses, probe_case, witness


@pytest.mark.oracle
def test_random_cases_agree_or_have_a_reason_not_to_be_compared(arch: Arch) -> None:
    report = fuzz(arch, 5, 3, [witness(Other.KVM)])
    (row,) = report.summary
    if kvm_refuses(arch):
        assert row.verdict is Verdict.NOT_COMPARABLE
        assert row.reason == kvm_refuses(arch)
        assert row.pages == 0
    else:
        assert row.verdict is Verdict.AGREE, report.rows
        assert row.pages == row.pages_equal > 0


@pytest.fixture
def no_device(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """A machine without KVM."""
    monkeypatch.setattr(kvm, "DEVICE", tmp_path / "kvm")
    return tmp_path / "kvm"


def test_no_device_is_a_reason(no_device: Path) -> None:
    assert kvm.unusable() == f"there is no {no_device}"
    with pytest.raises(KjumpError, match="there is no"):
        kvm.run_kvm(build_image([probe_case(Arch.X86_64)], in_place=True))


def test_a_file_that_is_no_device_is_a_reason(no_device: Path) -> None:
    no_device.write_bytes(b"")
    assert "does not answer" in kvm.unusable()
