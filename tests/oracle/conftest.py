"""Small cases, and machines made of our own to see that differences are noticed."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from emu.kexec.arch import Arch
from emu.oracle.arena import random_case
from emu.oracle.case import Case
from emu.oracle.image import OracleImage
from emu.oracle.machines import Other, Witness
from emu.oracle.ours import run_ours
from emu.oracle.outcome import TIME_LIMIT, Run
from emu.oracle.shapes import Page, place

HIGH = 0x100000


def patched(case: Case, address: int, data: bytes) -> Case:
    """The case with other bytes at a physical address of its first piece of memory."""
    start, content = case.memory[0]
    changed = bytearray(content)
    changed[address - start : address - start + len(data)] = data
    return replace(case, memory=[(start, changed), *case.memory[1:]])


def with_peer(arch: Arch, code: bytes) -> Case:
    """A round trip whose peer, in a page that stays where it is, is ``code``."""
    for number in range(1000):
        case = random_case(arch, 1, number)
        start = case.registers["rdx"] if arch.word == 8 else None
        if "round trip" in case.name and start == place(Page.PEER):
            return patched(case, place(Page.PEER), code)
    raise AssertionError("no such case")


def liar(change: Callable[[OracleImage, Run], Run]) -> Witness:
    """Another machine: ours, with ``change`` made to what it answers."""

    def run(image: OracleImage, *, limit: float = TIME_LIMIT) -> Run:
        del limit
        return change(image, replace(run_ours(image), machine="QEMU"))

    return Witness(Other.QEMU, run, lambda _arch: "")


def flipped(run: Run, address: int, bit: int = 1) -> Run:
    """The run with one bit of its memory another."""

    def read(start: int, size: int) -> bytes:
        data = bytearray(run.read(start, size))
        if start <= address < start + size:
            data[address - start] ^= bit
        return bytes(data)

    return replace(run, read=read)


@pytest.fixture(params=list(Arch))
def arch(request: pytest.FixtureRequest) -> Arch:
    """Each architecture."""
    return Arch(request.param)
