"""Sessions of the debugger on a small machine, recorded once for all tests that look at them."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from emu.debugger.session import Session
from emu.journey.scene import find_journey, make_scene
from emu.kexec.arch import Arch


@pytest.fixture(scope="session")
def session_of() -> Callable[[Arch], Session]:
    """The one recorded session of an architecture; a test goes where it wants to be first."""
    kept: dict[Arch, Session] = {}

    def get(arch: Arch) -> Session:
        if arch not in kept:
            kept[arch] = Session(make_scene(find_journey("jump"), arch=arch, ram="24M", target="2M@16M"))
        return kept[arch]

    return get


@pytest.fixture(scope="session", params=[Arch.X86_64, Arch.I386_PAE], ids=str)
def recorded(request: pytest.FixtureRequest, session_of: Callable[[Arch], Session]) -> Session:
    """A recorded jump on a 64-bit and on a 32-bit machine."""
    return session_of(request.param)
