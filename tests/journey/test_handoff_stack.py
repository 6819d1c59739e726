"""Hand-off by the stack alone: B is told nothing, and goes back by the word that it found on its stack."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from emu.errors import ImageError
from emu.journey.journey import Journey
from emu.journey.scene import Scene
from emu.kexec.arch import Arch


@pytest.mark.parametrize("arch", list(Arch))
@pytest.mark.parametrize("words", ["", "ret"])
def test_b_calls_back_or_returns_and_all_holds(arch: Arch, words: str, scene_of: Callable[..., Scene]) -> None:
    journey = Journey(replace(scene_of(arch, handoff="stack"), b_words=words))
    result = journey.run()
    assert result.findings == []
    assert result.ok
    loaded = journey.require_loaded()
    back = loaded.stub.symbols["back_from_peer"]
    assert f"B| no jump page, back entry {back:#x}" in result.console
    # A learns where B may be entered again: behind B's call, or at the start as the stub left it on the stack.
    peer = loaded.start if words else journey.kernel_b.symbols["resume_entry"]
    said = next(line for line in result.console if line.startswith("A| back: returned, peer "))
    assert int(said.split()[-1], 16) == peer or not words
    assert result.console[-1] == "A| all intact"


@pytest.mark.parametrize("arch", [Arch.I386, Arch.X86_64])
def test_a_stub_without_restore_routines_can_be_run(
    arch: Arch, scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]
) -> None:
    name = "relocate_new_kernel.S"
    stub = changed_stub(arch, name, ("restore_after_save:", "other_after_save:"))
    journey = Journey(scene_of(arch, handoff="stack", stubs=(stub,)))
    result = journey.run()
    assert result.findings == []
    assert result.ok
    assert journey.require_loaded().jump_entry is None


def test_but_not_by_the_jump_page(scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]) -> None:
    stub = changed_stub(Arch.X86_64, "relocate_new_kernel.S", ("restore_after_save:", "other_after_save:"))
    with pytest.raises(ImageError, match=r"has no restore_after_save.*--handoff stack"):
        Journey(scene_of(Arch.X86_64, stubs=(stub,))).run()


def test_a_broken_stub_is_found_by_the_stack_too(
    scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]
) -> None:
    change = ("    popq    %rbp\n    popq    %rbx\n    ret\n", "    popq    %rbp\n    popq    %rcx\n    ret\n")
    stub = changed_stub(Arch.X86_64, "relocate_new_kernel.S", change)
    result = Journey(scene_of(Arch.X86_64, handoff="stack", stubs=(stub,))).run()
    assert not result.ok
    assert result.findings[0].kind == "registers"
    assert "`popq %rcx` where the built-in stub has `popq %rbx`" in result.findings[0].because[0]
