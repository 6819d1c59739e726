"""The debugger on stubs of Linux's shapes: stops by the kernel's own symbols, forwards and back, each at its offset."""

from __future__ import annotations

import io
from pathlib import Path

import pytest

from emu.cli_kernel import kernel_scene
from emu.debugger.repl import Repl
from emu.debugger.session import Session
from emu.kernelfile import KernelStub, find_stub
from tests.journey.test_linux_lists import SMALL, classic, later

pytestmark = [pytest.mark.oracle("as", "ld"), pytest.mark.slow]


def opened(path: Path, stub: KernelStub) -> tuple[Session, Repl]:
    session = Session(kernel_scene(path, stub, **SMALL))  # type: ignore[arg-type]
    return session, Repl(session, stdout=io.StringIO())


@pytest.mark.parametrize("form", ["classic i386", "classic x86_64", "6.14 x86_64"])
def test_symbols_and_offsets_are_the_kernel_s_own(tmp_path: Path, form: str) -> None:
    path = later(tmp_path) if form.startswith("6.14") else classic(tmp_path, 32 if form.endswith("i386") else 64)
    stub = find_stub(path)
    session, repl = opened(path, stub)
    arch = session.scene.arch
    page = int(session.journey.require_loaded().image.control_page)
    said = "".join(map(repl.output_of, ("goto transition suspend", "break identity_mapped", "continue")))
    assert "at identity_mapped" in said
    assert session.machine.cpu.pc == page + stub.parts["identity_mapped"]
    assert "identity_mapped" in repl.output_of("info symbol $pc")
    repl.output_of("stepi")
    assert "identity_mapped+0x" in repl.output_of("info symbol $pc")
    repl.output_of("break swap_pages")
    repl.output_of("continue")
    assert session.machine.cpu.pc == page + stub.parts["swap_pages"]
    assert "identity_mapped+0x" in repl.output_of("bt")
    repl.output_of("delete")
    repl.output_of("break virtual_mapped")
    assert "return B->A" in repl.output_of("continue")
    assert session.machine.cpu.pc & 0xFFF == stub.parts["virtual_mapped"]
    linear = session.machine.cpu.pc
    assert (
        linear == (stub.linear if form == "classic x86_64" else int(arch.direct(page))) + stub.parts["virtual_mapped"]
    )
    repl.output_of("break identity_mapped")
    repl.output_of("reverse-continue")
    assert session.machine.cpu.pc == page + stub.parts["identity_mapped"]
    session.machine.close()
