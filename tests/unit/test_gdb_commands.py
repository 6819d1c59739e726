"""What each packet does to a session, without a socket; and that no packet whatever upsets it."""

from __future__ import annotations

import re

import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from emu.debugger.gdb.commands import MOST_READ, Stub
from emu.debugger.gdb.packets import escape, unescape
from emu.debugger.gdb.registers import BYTES, REGISTERS, RIP
from emu.debugger.session import Session
from emu.errors import DebuggerError
from emu.kexec.arch import Arch
from tests.gdb_bench import GDB_FEATURES, at_the_stub

NUMBERS = {register.name: number for number, register in enumerate(REGISTERS)}
WORDS = (
    "?", "g", "G00", "p0", "P0=00", "m0,4", "M0,1:00", "X0,1:a", "Z0,0,1", "z0,0,1", "Z2,1000,4", "vCont?", "vCont;s:1",
    "vCont;t", "s", "bs", "H", "Hg0", "T1", "T7", "D;1", "k", "qC", "qfThreadInfo", "qsThreadInfo", "qAttached",
    "qRcmd,68",
    "qSupported", "qXfer:features:read:target.xml:0,100", "qXfer:memory-map:read::0,100", "Qqemu.PhyMemMode:1",
    "qqemu.PhyMemMode", "QStartNoAckMode", "qThreadExtraInfo,1", "vMustReplyEmpty", "vKill;1", "!", "R", "i",
    "A", "\xff",
)  # fmt: skip


class Talk:
    """A stub, its session, and the answers that a test wants."""

    def __init__(self, arch: Arch = Arch.X86_64) -> None:
        self.session: Session = at_the_stub(arch)
        self.said: list[str] = []
        self.stub = Stub(self.session, self.command)
        self.last("qSupported:" + GDB_FEATURES)

    def command(self, text: str) -> str:
        if text == "fail":
            raise DebuggerError("no such thing")
        if text == "move":
            self.session.step()
        self.said.append(text)
        return f"did {text}\n"

    def all(self, packet: str | bytes) -> list[bytes]:
        return self.stub.handle(packet.encode() if isinstance(packet, str) else packet)

    def last(self, packet: str | bytes) -> str:
        return self.all(packet)[-1].decode()

    def register(self, name: str) -> int:
        return int.from_bytes(bytes.fromhex(self.last(f"p{NUMBERS[name]:x}")), "little")


def pc_of(reply: str) -> int:
    found = re.search(f"{RIP:02x}:([0-9a-f]{{16}});", reply)
    assert found is not None
    return int.from_bytes(bytes.fromhex(found.group(1)), "little")


@pytest.fixture
def talk() -> Talk:
    return Talk()


def text_of(payloads: list[bytes]) -> str:
    return b"".join(bytes.fromhex(one[1:].decode()) for one in payloads if one[:1] == b"O" and one != b"OK").decode()


# ---- what gdb asks when it attaches ----------------------------------------------------------------------------


def test_the_features_are_announced(talk: Talk) -> None:
    offered = talk.last("qSupported:" + GDB_FEATURES).split(";")
    wanted = (
        "qXfer:features:read+ qXfer:memory-map:read+ ReverseStep+ ReverseContinue+ vContSupported+ QStartNoAckMode+"
    )
    assert set(wanted.split()) <= set(offered)
    assert "PacketSize=4000" in offered


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        ("qC", "QC1"), ("qfThreadInfo", "m1"), ("qsThreadInfo", "l"), ("qAttached", "1"), ("Hg0", "OK"), ("Hc-1", "OK"),
        ("T1", "OK"), ("T2", "E01"), ("vCont?", "vCont;c;C;s;S"), ("vMustReplyEmpty", ""), ("qOffsets", ""), ("", ""),
        ("qqemu.PhyMemMode", "0"), ("!", ""), ("vCont;t", ""), ("Qqemu.PhyMemMode:2", "E22"),
    ],
)  # fmt: skip
def test_a_plain_query_has_its_plain_answer(talk: Talk, packet: str, answer: str) -> None:
    assert talk.all(packet) == [answer.encode()]


def test_no_acknowledgements_are_wanted_any_more_after_the_request(talk: Talk) -> None:
    assert talk.stub.acknowledging
    assert talk.last("QStartNoAckMode") == "OK"
    assert not talk.stub.acknowledging


@pytest.mark.parametrize("document", ["features:read:target.xml", "memory-map:read:"])
def test_a_document_comes_in_pieces(talk: Talk, document: str) -> None:
    pieces, more = b"", True
    while more:
        answer = talk.all(f"qXfer:{document}:{len(pieces):x},200")[0]
        more = answer[:1] == b"m"
        pieces += unescape(answer[1:])
    assert pieces.startswith(b"<?xml")
    assert pieces.rstrip().endswith((b"</target>", b"</memory-map>"))


def test_a_document_that_there_is_not_is_an_error(talk: Talk) -> None:
    assert talk.last("qXfer:features:read:other.xml:0,10") == "E00"
    assert talk.last("qXfer:features:read:target.xml:ffffff,10") == "E01"
    assert talk.last("qXfer:auxv:read::0,10") == ""


def test_the_thread_says_mode_position_and_transition(talk: Talk) -> None:
    said = bytes.fromhex(talk.last("qThreadExtraInfo,1")).decode()
    assert said == f"{talk.session.machine.cpu.mode()}, N {talk.session.position}, suspend"


# ---- registers -------------------------------------------------------------------------------------------------


def test_a_stop_reply_carries_the_linear_program_counter(talk: Talk) -> None:
    reply = talk.last("?")
    assert reply.startswith("T05thread:1;")
    assert pc_of(reply) == talk.session.pc


def test_registers_come_together_and_one_by_one(talk: Talk) -> None:
    together = bytes.fromhex(talk.last("g"))
    assert len(together) == BYTES
    at = 0
    for number, register in enumerate(REGISTERS):
        assert together[at : at + register.size].hex() == talk.last(f"p{number:x}"), register.name
        at += register.size
    assert talk.last(f"p{len(REGISTERS):x}") == "E01"


def test_a_register_can_be_set_and_undone(talk: Talk) -> None:
    old = talk.register("rbx")
    assert talk.last(f"P1={(old ^ 0xFF).to_bytes(8, 'little').hex()}") == "OK"
    assert talk.session.machine.cpu.registers()["rbx"] == old ^ 0xFF
    talk.session.undo()
    assert talk.register("rbx") == old


def test_all_registers_at_once_change_only_what_differs(talk: Talk) -> None:
    data = bytearray.fromhex(talk.last("g"))
    data[8] ^= 1
    assert talk.last("G" + data.hex()) == "OK"
    assert [change.arguments for change in talk.session.changes] == [("rbx", int.from_bytes(data[8:16], "little"))]
    talk.session.undo()


@pytest.mark.parametrize("packet", ["P0=00", "Pffff=00", "P0", "p", "pzz", "G0", "Gxx", f"G{'00' * (BYTES + 1)}"])
def test_a_senseless_register_packet_is_an_error(talk: Talk, packet: str) -> None:
    assert talk.last(packet) in ("E01", "E22")


# ---- memory ----------------------------------------------------------------------------------------------------


def test_linear_memory_is_read_through_the_page_tables(talk: Talk) -> None:
    code = talk.session.machine.cpu.peek(talk.session.pc, 16)
    assert code is not None
    assert talk.last(f"m{talk.session.pc:x},10") == code.hex()


def test_what_is_not_mapped_is_an_error(talk: Talk) -> None:
    for address in ("ffff900000000000", "8000000000000000", "ffffffffffffffff"):
        assert talk.last(f"m{address},4") == "E14"


def test_a_read_up_to_the_end_of_what_is_mapped_is_short(talk: Talk) -> None:
    session = talk.session
    page = session.machine.cpu.rsp & ~0xFFF
    while session.machine.cpu.walk(page).physical is not None:
        page += 0x1000
    assert len(bytes.fromhex(talk.last(f"m{page - 4:x},10"))) == 4
    assert talk.last(f"m{page:x},10") == "E14"


def test_an_enormous_read_is_cut_to_what_a_packet_holds(talk: Talk) -> None:
    assert len(talk.last("m1000000,ffffffff")) in (2 * MOST_READ, 3)
    assert talk.last("Qqemu.PhyMemMode:1") == "OK"
    assert len(talk.last("m0,ffffffff")) == 2 * MOST_READ


def test_physical_memory_mode_reads_past_the_page_tables(talk: Talk) -> None:
    physical = talk.session.machine.cpu.walk(talk.session.pc).physical
    assert physical is not None
    code = talk.last(f"m{talk.session.pc:x},10")
    assert talk.last("Qqemu.PhyMemMode:1") == "OK"
    assert talk.last("qqemu.PhyMemMode") == "1"
    assert talk.last(f"m{physical:x},10") == code
    assert talk.last("Qqemu.PhyMemMode:0") == "OK"
    assert talk.last(f"m{talk.session.pc:x},10") == code


@pytest.mark.parametrize("binary", [False, True])
def test_memory_can_be_stored_and_undone(talk: Talk, binary: bool) -> None:
    at = talk.session.machine.cpu.rsp - 64
    old, new = talk.last(f"m{at:x},6"), b"$#}*\x03\x00"
    packet = b"X%x,6:%b" % (at, escape(new)) if binary else f"M{at:x},6:{new.hex()}".encode()
    assert talk.last(packet) == "OK"
    assert talk.last(f"m{at:x},6") == new.hex()
    talk.session.undo()
    assert talk.last(f"m{at:x},6") == old


def test_a_store_that_cannot_be_is_an_error_and_stores_nothing(talk: Talk) -> None:
    assert talk.last("X0,0:") == "OK"
    assert talk.last("Mffff900000000000,1:00") == "E14"
    assert talk.last("M1000000,2:00") == "E22"
    assert talk.last("M1000000,1:zz") == "E22"
    assert talk.last("X1000000,9:a") == "E22"
    assert not talk.session.changes


# ---- moving ----------------------------------------------------------------------------------------------------


def test_a_step_and_the_step_back(talk: Talk) -> None:
    first, n = talk.session.pc, talk.session.position.n
    reply = talk.last("vCont;s:1")
    assert pc_of(reply) == talk.session.pc != first
    assert talk.session.position.n == n + 1
    assert pc_of(talk.last("bs")) == first
    assert talk.session.position.n == n
    assert pc_of(talk.last("s")) != first


def test_a_breakpoint_forwards_and_backwards(talk: Talk) -> None:
    start = talk.session.pc
    talk.all("s")
    second = talk.session.pc
    for _ in range(3):
        talk.all("s")
    end = talk.session.pc
    assert talk.last(f"Z0,{second:x},1") == "OK"
    back = talk.last("bc")
    assert (pc_of(back), "swbreak:;" in back) == (second, True)
    assert talk.last(f"Z1,{end:x},1") == "OK"
    on = talk.last("vCont;c:1")
    assert (pc_of(on), "hwbreak:;" in on) == (end, True)
    assert talk.last(f"z0,{second:x},1") == "OK"
    assert talk.last(f"z1,{end:x},1") == "OK"
    assert not talk.session.stops.stops
    assert start != second


def test_swbreak_is_not_said_to_a_gdb_that_does_not_know_it(talk: Talk) -> None:
    talk.last("qSupported:xmlRegisters=i386")
    talk.all("s")
    here = talk.session.pc
    talk.all("bs")
    talk.last(f"Z0,{here:x},1")
    assert "swbreak" not in talk.last("c")
    assert talk.session.pc == here


def test_a_write_watchpoint_stops_behind_the_store_and_before_it_on_the_way_back(talk: Talk) -> None:
    at = talk.session.machine.cpu.rsp - 8
    n = talk.session.position.n
    assert talk.last(f"Z2,{at:x},8") == "OK"
    reply = talk.last("c")
    assert f"watch:{at:x};" in reply
    assert talk.session.position.n == n + 1
    talk.all("s")
    assert f"watch:{at:x};" in talk.last("bc")
    assert talk.session.position.n == n
    assert talk.last(f"z2,{at:x},8") == "OK"


def test_a_watchpoint_across_a_page_is_a_stop_in_each(talk: Talk) -> None:
    page = talk.session.machine.cpu.rsp & ~0xFFF
    assert talk.last(f"Z4,{page - 4:x},8") == "OK"
    assert [stop.size for stop in talk.session.stops.enabled()] == [4, 4]
    assert talk.last(f"z4,{page - 4:x},8") == "OK"
    assert not talk.session.stops.stops


def test_a_watchpoint_outlives_the_page_tables_that_it_was_set_under(talk: Talk) -> None:
    at, cr3 = talk.session.machine.cpu.rsp - 8, talk.session.machine.cpu.cr3
    assert talk.last(f"Z2,{at:x},8") == "OK"
    assert talk.last(f"z2,{at:x},8") == "OK"
    while talk.session.machine.cpu.cr3 == cr3:
        talk.all("s")
    assert talk.last(f"m{at:x},8") == "E14"
    assert talk.last(f"Z2,{at:x},8") == "OK"
    assert f"watch:{at:x};" in talk.last("bc")
    assert talk.session.machine.cpu.cr3 == cr3


@pytest.mark.parametrize(
    ("packet", "answer"),
    [
        ("Z2,ffff900000000000,4", "E14"), ("Z2,1000,0", "E22"), ("Z2,1000,ffffffff", "E22"), ("Z9,0,1", ""),
        ("Z2,ffffffffffffffff,8", "E22"), ("Z0", "E22"), ("z0", "E22"), ("z0,1234,1", "OK"),
    ],
)  # fmt: skip
def test_a_point_that_cannot_be_is_refused(talk: Talk, packet: str, answer: str) -> None:
    assert talk.last(packet) == answer
    assert not talk.session.stops.stops


def test_the_ends_of_the_recording_are_told(talk: Talk) -> None:
    assert "replaylog:end;" in talk.last("c")
    assert "replaylog:end;" in talk.last("s")
    talk.session.goto(0)
    assert "replaylog:begin;" in talk.last("bs")
    assert "replaylog:begin;" in talk.last("bc")


@pytest.mark.parametrize(("packet", "n"), [("c", 1), ("bc", 0)])
def test_gdb_can_interrupt_a_move(packet: str, n: int) -> None:
    session = at_the_stub()
    asked: list[int] = []

    def interrupted() -> bool:
        asked.append(1)
        return True

    stub = Stub(session, str, interrupted)
    start = session.timeline.now
    reply = stub.handle(packet.encode())[-1]
    assert reply.startswith(b"T02")
    assert asked == [1]
    assert session.machine.loop.pause_at is None
    assert (session.timeline.now > start) == bool(n)
    assert session.timeline.now < session.timeline.end


def test_a_branch_is_recorded_while_gdb_runs_it(talk: Talk) -> None:
    history = talk.session.recording.history
    assert talk.last("P1=" + "00" * 8) == "OK"
    before = len(history.checkpoints)
    assert "replaylog:end;" in talk.last("c")
    assert len(history.checkpoints) > before + 3
    assert talk.session.machine.loop.pause_at is None
    assert talk.last("bs").startswith("T05")
    while talk.session.changes:
        talk.session.undo()
    assert talk.register("rbx") != 0


def test_a_stop_of_the_persons_own_is_told_on_the_console(talk: Talk) -> None:
    talk.all("s")
    mine = talk.session.add_break(f"{talk.session.pc:#x}")
    talk.all("bs")
    said = talk.all("c")
    assert f"breakpoint {mine.number}" in text_of(said)
    assert b"swbreak" not in said[-1]


@pytest.mark.parametrize("arch", [Arch.I386, Arch.I386_PAE])
def test_breakpoints_and_memory_hold_across_the_end_of_paging(arch: Arch) -> None:
    talk = Talk(arch)
    while talk.session.machine.cpu.cr0 >> 31:
        talk.all("s")
    here, n = talk.session.pc, talk.session.position.n
    code = talk.last(f"m{here:x},4")
    assert code == talk.session.machine.ram.read(here, 4).hex()
    assert talk.last(f"m{0x100000000 + here:x},4") == "E14"
    talk.session.step_back(5)
    assert talk.last(f"Z0,{here:x},1") == "OK"
    assert pc_of(talk.last("c")) == here
    assert talk.session.position.n == n
    assert talk.register("cr0") >> 31 == 0


# ---- monitor, and going ----------------------------------------------------------------------------------------


def test_monitor_hands_the_command_on_and_prints_what_it_says(talk: Talk) -> None:
    said = talk.all("qRcmd," + b"walk 0x1000".hex())
    assert talk.said == ["walk 0x1000"]
    assert text_of(said) == "did walk 0x1000\n"
    assert said[-1] == b"OK"


def test_monitor_tells_that_a_command_failed(talk: Talk) -> None:
    assert text_of(talk.all("qRcmd," + b"fail".hex())) == "no such thing\n"
    assert talk.last("qRcmd,6") == "E22"


def test_monitor_says_that_gdb_must_look_again_after_a_move(talk: Talk) -> None:
    assert "maintenance flush register-cache" in text_of(talk.all("qRcmd," + b"move".hex()))


@pytest.mark.parametrize("packet", ["D", "D;1", "k", "vKill;1"])
def test_gdb_leaves_with_its_points_but_not_with_others(talk: Talk, packet: str) -> None:
    mine = talk.session.add_break("0x1234")
    talk.last("Z0,5678,1")
    assert talk.all(packet) == ([] if packet == "k" else [b"OK"])
    assert talk.stub.leaving
    assert list(talk.session.stops.stops) == [mine.number]


# ---- hostile ---------------------------------------------------------------------------------------------------

QUICK = st.one_of(
    st.binary(max_size=60),
    st.sampled_from(WORDS).map(lambda word: word.encode("latin-1")),
    st.builds(lambda word, tail: word.encode("latin-1") + tail, st.sampled_from(WORDS), st.binary(max_size=20)),
    st.builds(
        lambda letter, numbers, tail: letter + b",".join(b"%x" % number for number in numbers) + tail,
        st.sampled_from([b"m", b"M", b"X", b"Z0,", b"Z2,", b"z3,", b"p", b"P", b"G", b"H", b"T", b"D;", b"qXfer:"]),
        st.lists(st.integers(0, (1 << 64) - 1), max_size=3),
        st.sampled_from([b"", b":", b":00", b"=00", b";", b"\x00"]),
    ),
)


@settings(deadline=None, max_examples=400, suppress_health_check=[HealthCheck.too_slow])
@given(QUICK)
@example(b"m" + b"f" * 17 + b",1")
@example(b"vCont;" + b"s;" * 1000)
@example(b"qRcmd," + b"ff" * 4000)
@example(b"qSupported:" + b"\xff;+" * 100)
def test_no_packet_upsets_the_stub(payload: bytes) -> None:
    stub = HOSTILE()
    if re.match(rb"(c|C|bc|vCont;[cC])", payload):
        return  # these run to the end of the recording, which is no news
    answers = stub.handle(payload)
    assert all(isinstance(answer, bytes) for answer in answers)


def HOSTILE() -> Stub:  # noqa: N802 - a stub that lives as long as all examples do
    if not _HOSTILE:
        _HOSTILE.append(Stub(at_the_stub(), str))
    return _HOSTILE[0]


_HOSTILE: list[Stub] = []
