"""A fuzzer's case in the debugger: where the two rooms meet."""

from __future__ import annotations

from emu.errors import FuzzError
from emu.fuzz.batch import world_of
from emu.fuzz.case_file import CaseFile
from emu.fuzz.target import Script
from emu.journey.scene_data import scene_from


def debug_case(file: CaseFile) -> int:
    """Open the debugger where the case begins, its input put in, and run on to what goes wrong."""
    from emu.debugger.address import Address  # noqa: PLC0415 - cmd2 costs half a second
    from emu.debugger.main import debug_main  # noqa: PLC0415
    from emu.debugger.session import Session  # noqa: PLC0415

    script: Script | None = world_of(file.plan).script(file.case)
    if script is None:
        raise FuzzError("runs no machine, so there is nothing to step through", where=file.case.target)
    session = Session(scene_from(file.plan.scene))
    session.goto(script.position.n, script.position.k)
    for address, data in script.writes:
        session.write_memory(Address(address, physical=True), data)
    for name, value in script.registers:
        session.set_register(name, value)
    print(f"{file.case}\nat {script.position}: {len(script.writes)} stores, {len(script.registers)} registers set")
    return debug_main(session)
