"""Somebody else's stub as an object file, from GNU as."""

from __future__ import annotations

import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from emu import resources
from emu.errors import ImageError
from emu.journey.journey import Journey
from emu.journey.scene import Scene
from emu.kexec.arch import Arch


def assemble(folder: Path, arch: Arch, *options: str, source: Path | None = None) -> Path:
    include = resources.asm_dir() / "include"
    name = "i386" if arch.bits == 32 else "x86_64"
    source = source or resources.asm_dir() / name / "relocate_new_kernel.S"
    target = folder / f"{name}.o"
    subprocess.run(["as", f"--{arch.bits}", *options, "-I", include, "-o", target, source], check=True)
    return target


@pytest.mark.oracle("as")
@pytest.mark.parametrize("arch", list(Arch))
def test_an_object_file_runs_in_place_of_the_source(arch: Arch, tmp_path: Path, scene_of: Callable[..., Scene]) -> None:
    stub = assemble(tmp_path, arch)
    journey = Journey(scene_of(arch, stubs=(stub,)))
    result = journey.run()
    assert journey.require_loaded().stub.name.endswith(".o")
    assert result.findings == []
    assert result.ok


@pytest.mark.oracle("as")
@pytest.mark.parametrize("options", [(), ("-g",)])
def test_a_broken_object_file_is_found_with_what_departs(
    options: tuple[str, ...], tmp_path: Path, scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]
) -> None:
    change = ("    popq    %rbp\n    popq    %rbx\n    ret\n", "    popq    %rbp\n    popq    %rbx\n    std\n    ret\n")
    source = changed_stub(Arch.X86_64, "relocate_new_kernel.S", change)
    stub = assemble(tmp_path, Arch.X86_64, *options, source=source)
    result = Journey(scene_of(Arch.X86_64, stubs=(stub,))).run()
    assert not result.ok
    assert len(result.findings) == 1
    finding = result.findings[0]
    assert finding.kind == "registers"
    assert "DF" in finding.actual
    assert "`std` is not in the built-in stub" in finding.because[0]
    if options:
        assert "my_relocate_new_kernel.S:" in finding.because[0]


@pytest.mark.oracle("as")
def test_an_object_file_for_another_machine_is_refused(tmp_path: Path, scene_of: Callable[..., Scene]) -> None:
    stub = assemble(tmp_path, Arch.X86_64)
    with pytest.raises(ImageError, match="is 64-bit code; the architecture is 32-bit"):
        Journey(scene_of(Arch.I386, stubs=(stub,)))


def test_a_file_that_is_no_stub_is_refused_with_what_it_lacks(tmp_path: Path, scene_of: Callable[..., Scene]) -> None:
    stub = tmp_path / "mine.S"
    stub.write_text("start:\n\tnop\n", encoding="utf-8")
    with pytest.raises(ImageError, match="is no stub: it has none of relocate_new_kernel"):
        Journey(scene_of(stubs=(stub,)))


def test_a_stub_that_is_larger_than_its_page_is_refused(
    scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]
) -> None:
    change = ("saved_context_end:", "    .space 4096\nsaved_context_end:")
    stub = changed_stub(Arch.X86_64, "relocate_new_kernel.S", change)
    with pytest.raises(ImageError, match="a control page has 4096"):
        Journey(scene_of(stubs=(stub,))).run()


def test_a_missing_stub_is_refused(tmp_path: Path, scene_of: Callable[..., Scene]) -> None:
    with pytest.raises(ImageError, match="no such file"):
        Journey(scene_of(stubs=(tmp_path / "none.S",)))
