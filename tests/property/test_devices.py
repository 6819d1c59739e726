"""Time may be cut into any pieces: devices do the same things at the same ticks, and end in the same state."""

from __future__ import annotations

from dataclasses import dataclass

from hypothesis import given
from hypothesis import strategies as st

from emu.machine.devices import Board, Clock, DeviceSignal, pc_devices
from emu.machine.devices.pit_counter import Counter, Mode

PORTS = (0x20, 0x21, 0xA0, 0xA1, 0x40, 0x41, 0x42, 0x43, 0x61, 0x70, 0x71, 0x80, 0xE9, *range(0x3F8, 0x400))
RING_PORTS = ((0x5C0, 0x5000), (0x5C4, 8), (0x5C8, 97), (0x5CC, 1), (0x5CC, 0))


@dataclass(frozen=True)
class Access:
    """What a guest does at a tick: a write of a value, or a read when there is none."""

    at: int
    port: int
    size: int
    value: int | None


byte_accesses = st.builds(
    Access,
    at=st.integers(0, 20_000),
    port=st.sampled_from(PORTS),
    size=st.just(1),
    value=st.none() | st.integers(0, 255),
)
ring_accesses = st.builds(
    lambda at, write: Access(at, write[0], 4, write[1]), at=st.integers(0, 20_000), write=st.sampled_from(RING_PORTS)
)
timer_starts = st.builds(
    lambda at, control, count: [Access(at, 0x43, 1, control), Access(at, 0x40, 1, count), Access(at, 0x40, 1, 0)],
    at=st.integers(0, 5_000),
    control=st.sampled_from((0x30, 0x34, 0x36, 0x38)),
    count=st.integers(1, 30),
)
programs = st.builds(
    lambda timer, others: sorted([*timer, *others], key=lambda access: access.at),
    timer=timer_starts,
    others=st.lists(byte_accesses | ring_accesses, max_size=25),
)


class Recorder:
    """A board whose every outward effect is written down, with the level of INT after each."""

    def __init__(self) -> None:
        self.log: list[object] = []
        self.board: Board = pc_devices(Clock(), dma_write=self._store, signal=self._signal)
        self._watch_timer()

    def _watch_timer(self) -> None:
        drive = self.board.pic.set_line

        def watched(number: int, level: bool) -> None:
            drive(number, level)
            self.log.append((number, level, self.board.pic.pending_vector()))

        self.board.pit._irq = watched
        self.board.serial._irq = watched

    def _store(self, address: int, data: bytes, name: str) -> None:
        self.log.append((address, data, name))

    def _signal(self, signal: DeviceSignal) -> None:
        self.log.append(signal)

    def run(self, program: list[Access], stops: list[int]) -> None:
        """Do each access at its tick; stop in between, for no reason, at ``stops``."""
        pauses = sorted(stops)
        for access in program:
            while pauses and pauses[0] <= access.at:
                self._go(pauses.pop(0))
            self._go(access.at)
            if access.value is None:
                self.log.append(self.board.bus.read(access.port, access.size))
            else:
                self.board.bus.write(access.port, access.size, access.value)
        for pause in [*pauses, 25_000]:
            self._go(pause)

    def _go(self, now: int) -> None:
        self.board.clock.now = now
        self.board.bus.advance(now)


@given(programs, st.lists(st.integers(0, 25_000), max_size=30))
def test_any_partition_of_time_gives_the_same_run(program: list[Access], stops: list[int]) -> None:
    whole, cut = Recorder(), Recorder()
    whole.run(program, [])
    cut.run(program, stops)
    assert whole.log == cut.log
    assert whole.board.snapshot() == cut.board.snapshot()


@given(programs, st.integers(0, 25_000))
def test_a_restored_board_goes_on_as_it_did_before(program: list[Access], when: int) -> None:
    recorder = Recorder()
    before = [access for access in program if access.at <= when]
    after = [access for access in program if access.at > when]
    for access in before:
        recorder._go(access.at)
        recorder.board.bus.write(access.port, access.size, access.value or 0)
    recorder._go(when)
    state = recorder.board.snapshot()
    runs = []
    for _ in range(2):
        recorder.log.clear()
        recorder.run(after, [])
        runs.append((list(recorder.log), recorder.board.snapshot()))
        recorder.board.restore(state)
        assert recorder.board.snapshot() == state
    assert runs[0] == runs[1]


@given(
    mode=st.sampled_from(Mode),
    count=st.integers(1, 40),
    new=st.integers(1, 40),
    when=st.integers(1, 90),
)
def test_a_counters_edges_are_all_the_changes_of_its_output(mode: Mode, count: int, new: int, when: int) -> None:
    """A count, then another one written at some moment: stepping from edge to edge misses no change."""
    counter = Counter(mode=mode, gate=False).loaded(count, 0).with_gate(True, 0).settled(when).loaded(new, when)
    level, now, changes = counter.out(when), when, []
    while (edge := counter.next_edge(now)) is not None and edge <= 300:
        counter = counter.settled(edge)
        now = edge
        if counter.out(edge) != level:
            level = not level
            changes.append(edge)
    watched = Counter(mode=mode, gate=False).loaded(count, 0).with_gate(True, 0).settled(when).loaded(new, when)
    seen = [
        clock
        for clock in range(when + 1, 301)
        if watched.settled(clock).out(clock) != watched.settled(clock - 1).out(clock - 1)
    ]
    assert changes == seen
