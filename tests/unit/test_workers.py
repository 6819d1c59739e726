"""Workers are fresh processes: nothing of ours reaches them, above all no machine."""

import signal

from emu.workers import processes

_OURS: list[str] = []


def _note(text: str) -> None:
    _OURS.append(text)


def _what_is_here() -> tuple[list[str], bool]:
    return _OURS, signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_workers_have_nothing_of_their_parents_and_leave_ctrl_c_to_it() -> None:
    _OURS.append("a machine of the parent's")
    try:
        with processes(1, _note, ("told",)) as pool:
            assert pool.submit(_what_is_here).result() == (["told"], True)
    finally:
        _OURS.clear()
