"""``bt``: who called whom, by frame pointers where they hold, else by what looks like return addresses on the stack."""

from __future__ import annotations

from dataclasses import dataclass

from emu.assembler import decode_one
from emu.debugger.address import Address
from emu.debugger.lines import WIDTH, wrap_all
from emu.debugger.places import image_at, place
from emu.debugger.session import Session
from emu.machine.cpustate import SS
from emu.x86.bits import Cr0

MOST_FRAMES = 64
SCANNED = 128
"""Words of stack that are looked at without frame pointers."""
_LONGEST_CALL = 7


@dataclass(frozen=True, slots=True)
class Frame:
    """A return address and the linear address of the stack slot that holds it."""

    slot: int
    address: int


def stack_base(session: Session) -> int:
    """The linear base of the stack segment, 0 in 64-bit mode."""
    return 0 if session.machine.cpu.bits == 64 else session.machine.cpu.segment(SS).base


def stack_pointer(session: Session) -> int:
    """The linear address of the top of the stack."""
    cpu = session.machine.cpu
    if cpu.bits == 64:
        return cpu.rsp
    wide = bool(cpu.segment(SS).db) or (not cpu.cr0 & Cr0.PE and cpu.bits == 32)
    return stack_base(session) + (cpu.rsp & (0xFFFFFFFF if wide else 0xFFFF)) & 0xFFFFFFFF


def stack_words(session: Session, count: int) -> list[tuple[int, int]]:
    """(linear address, word) of the top of the stack; as many of ``count`` as can be read."""
    size = session.machine.cpu.bits // 8
    top = stack_pointer(session)
    raw = session.read(Address(top), size * count) or b""
    return [(top + at, int.from_bytes(raw[at : at + size], "little")) for at in range(0, len(raw) - size + 1, size)]


def follows_call(session: Session, linear: int) -> bool:
    """Whether the instruction before ``linear`` is a call, in a program that is known."""
    if image_at(session, linear) is None:
        return False
    bits = session.machine.cpu.bits
    for size in range(2, _LONGEST_CALL + 1):
        raw = session.read(Address(linear - size), size)
        if raw is None or len(raw) < size:
            continue
        insn = decode_one(raw, linear - size, bits)
        if insn.size == size and insn.mnemonic.startswith(("call", "lcall")):
            return True
    return False


def _by_frame_pointers(session: Session) -> list[Frame]:
    size = session.machine.cpu.bits // 8
    mask = (1 << 8 * size) - 1
    top = stack_pointer(session)
    pointer = (session.machine.cpu.registers()["rbp"] & mask) + stack_base(session)
    frames: list[Frame] = []
    least = top
    while len(frames) < MOST_FRAMES and pointer >= least and pointer - least < 1 << 16:
        raw = session.read(Address(pointer), 2 * size) or b""
        if len(raw) < 2 * size:
            break
        back = int.from_bytes(raw[size:], "little")
        if not follows_call(session, back):
            break
        frames.append(Frame(pointer + size, back))
        least, pointer = pointer + 2 * size, int.from_bytes(raw[:size], "little") + stack_base(session)
    return frames


def _by_scan(session: Session) -> list[Frame]:
    words = stack_words(session, SCANNED)
    return [Frame(slot, word) for slot, word in words if follows_call(session, word)][:MOST_FRAMES]


def bt(session: Session, width: int = WIDTH) -> list[str]:
    """``bt``: the present instruction, then each caller.  What a scan of the stack found is called heuristic."""
    lines = [f"#0  {session.pc:#x} {place(session, session.pc)}"]
    frames, how = _by_frame_pointers(session), "frame pointers"
    if not frames:
        frames, how = _by_scan(session), "heuristic: no frame pointers, words on the stack that follow a call"
    for number, frame in enumerate(frames, 1):
        lines.append(f"#{number:<2} {frame.address:#x} {place(session, frame.address)}  [{frame.slot:#x}]")
    lines.append(f"({how if frames else 'heuristic: no word on the stack follows a call'})")
    return wrap_all(lines, width)
