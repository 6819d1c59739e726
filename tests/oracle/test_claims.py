"""Every claim that another machine can run gives the same result there: console, registers, the whole of RAM."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from emu.oracle.compare import Verdict, compare
from emu.oracle.ours import run_ours
from emu.oracle.outcome import Ended
from emu.oracle.qemu import run_qemu
from emu.suite.claim_file import ClaimFile, own_files
from emu.suite.modes import Mode
from emu.suite.runner import Runner
from emu.suite.stubs import stubs_for
from tests.claims_elsewhere import image_of, stays_here

TICK_LIMIT = 400_000_000


def groups() -> Iterator[tuple[ClaimFile, Mode]]:
    for file in own_files():
        for mode in file.modes:
            if not all(stays_here(claim) for claim in file.claims(mode)):
                yield file, mode


@pytest.mark.oracle("qemu-system-x86_64")
@pytest.mark.parametrize(
    ("file", "mode"), [pytest.param(file, mode, id=f"{file.name}-{mode}") for file, mode in groups()]
)
def test_claims_hold_on_qemu_as_they_do_here(file: ClaimFile, mode: Mode) -> None:
    runner = Runner(file, mode, stubs_for(mode, [])[0])
    image = image_of(runner, [claim for claim in file.claims(mode) if not stays_here(claim)])
    runner.close()
    ours = run_ours(image, ticks=TICK_LIMIT)
    assert (ours.ended, ours.why) == (Ended.DONE, "")  # two machines that both give up would agree too
    rows = compare(image, ours, run_qemu(image, limit=60))
    assert [(row.case, [str(one) for one in row.differences]) for row in rows if row.verdict is not Verdict.AGREE] == []
