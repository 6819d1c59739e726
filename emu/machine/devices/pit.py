"""The 8254 interval timer at 0x40 to 0x43 and the speaker control port 0x61.

Channel 0's output is IRQ 0; channel 2's gate is bit 0 of port 0x61 and its output bit 5.  The data sheet leaves
the power-on state undefined; here every channel is in mode 0 without a count, its output low.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from emu.machine.devices.clock import TICKS_PER_PIT_CLOCK, Clock
from emu.machine.devices.device import StateDevice
from emu.machine.devices.pit_counter import Counter, Mode
from emu.machine.devices.signals import IrqLine

CHANNEL_PORTS = (0x40, 0x41, 0x42)
CONTROL_PORT = 0x43
SPEAKER_PORT = 0x61
TIMER_IRQ = 0
SPEAKER_CHANNEL = 2

ACCESS_LOW, ACCESS_HIGH, ACCESS_BOTH = 1, 2, 3
READ_BACK = 3
READ_BACK_NO_COUNT = 0x20
READ_BACK_NO_STATUS = 0x10
SPEAKER_GATE = 0x01
SPEAKER_KEPT = 0x0F
SPEAKER_REFRESH = 0x10
SPEAKER_OUT = 0x20
REFRESH_CLOCKS = 18
"""Input clocks between two DRAM refreshes, which toggle bit 4 of port 0x61: about 15 microseconds."""
BCD_MODULUS = 10_000
BCD_WEIGHTS = (1, 10, 100, 1000)


@dataclass(frozen=True, slots=True)
class Channel:
    """A counter with its byte-wide front: access mode, the half of a count written or read, the latches."""

    counter: Counter = Counter()
    access: int = ACCESS_BOTH
    low_written: int | None = None
    high_next: bool = False
    latched: int | None = None
    status: int | None = None

    @property
    def bcd(self) -> bool:
        """Whether counts are four decimal digits."""
        return self.counter.modulus == BCD_MODULUS

    def _encoded(self, count: int) -> int:
        return int(str(count), 16) if self.bcd else count

    def _decoded(self, raw: int) -> int:
        if not self.bcd:
            return raw
        return sum((raw >> 4 * digit & 0xF) * weight for digit, weight in enumerate(BCD_WEIGHTS)) % BCD_MODULUS

    def controlled(self, word: int, now: int) -> Channel:
        """A control word for this channel: access 0 latches the count, anything else programs it."""
        access = word >> 4 & 3
        if access == 0:
            return self.with_count_latched(now)
        number = word >> 1 & 7
        mode = Mode(number if number <= Mode.HARDWARE_STROBE else number - 4)
        counter = Counter(mode=mode, gate=self.counter.gate, modulus=BCD_MODULUS if word & 1 else 0x10000)
        return Channel(counter, access)

    def with_count_latched(self, now: int) -> Channel:
        """Hold the count of this moment until it is read; a count already held stays."""
        if self.latched is not None:
            return self
        return replace(self, latched=self._encoded(self.counter.count(now)), high_next=False)

    def with_status_latched(self, now: int) -> Channel:
        """Hold the status byte of this moment until it is read."""
        if self.status is not None:
            return self
        out, null = self.counter.out(now) << 7, self.counter.null_count(now) << 6
        return replace(self, status=out | null | self.access << 4 | self.counter.mode << 1 | self.bcd)

    def written(self, value: int, now: int) -> Channel:
        """A byte of a count."""
        if self.access == ACCESS_BOTH and self.low_written is None:
            waiting = self.counter.stopped() if self.counter.mode == Mode.TERMINAL_COUNT else self.counter
            return replace(self, counter=waiting, low_written=value)
        raw = value << 8 if self.access == ACCESS_HIGH else value
        if self.access == ACCESS_BOTH:
            raw = value << 8 | (self.low_written or 0)
        return replace(self, counter=self.counter.loaded(self._decoded(raw), now), low_written=None)

    def read(self, now: int) -> tuple[int, Channel]:
        """A byte of the status or the count, and the channel after the read."""
        if self.status is not None:
            return self.status, replace(self, status=None)
        count = self._encoded(self.counter.count(now)) if self.latched is None else self.latched
        high = self.access == ACCESS_HIGH or self.high_next
        more = self.access == ACCESS_BOTH and not self.high_next
        return count >> 8 if high else count & 0xFF, replace(
            self, high_next=more, latched=self.latched if more else None
        )


@dataclass(frozen=True, slots=True)
class PitState:
    """The channels, the written bits of port 0x61, and what drives IRQ 0.

    ``driven`` is the input clock up to which the output of channel 0 was put on the line, ``line`` its level.
    """

    channels: tuple[Channel, Channel, Channel] = (Channel(), Channel(), Channel(Counter(gate=False)))
    speaker: int = 0
    driven: int = 0
    line: bool = False


class Pit(StateDevice[PitState]):
    """Three channels; the first interrupts."""

    name = "pit"

    def __init__(self, clock: Clock, irq: IrqLine) -> None:
        super().__init__(PitState())
        self._edge_of: PitState | None = None
        self._edge: int | None = None
        self._clock = clock
        self._irq = irq

    def ports(self) -> Iterable[int]:
        """0x40 to 0x43, and 0x61."""
        return (*CHANNEL_PORTS, CONTROL_PORT, SPEAKER_PORT)

    @property
    def _now(self) -> int:
        return self._clock.now // TICKS_PER_PIT_CLOCK

    def read(self, port: int, size: int) -> int:
        """A count or status byte, or port 0x61.  The control register reads all-ones."""
        self.advance(self._clock.now)
        if port == SPEAKER_PORT:
            out = SPEAKER_OUT if self._channel(SPEAKER_CHANNEL).counter.out(self._now) else 0
            refresh = SPEAKER_REFRESH if self._now // REFRESH_CLOCKS & 1 else 0
            return self.state.speaker | refresh | out
        if port == CONTROL_PORT:
            return 0xFF
        number = CHANNEL_PORTS.index(port)
        value, channel = self._channel(number).read(self._now)
        self._put(number, channel)
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """A byte of a count, a control word, or port 0x61."""
        self.advance(self._clock.now)
        if port == SPEAKER_PORT:
            self.state = replace(self.state, speaker=value & SPEAKER_KEPT)
            channel = self._channel(SPEAKER_CHANNEL)
            gated = channel.counter.with_gate(bool(value & SPEAKER_GATE), self._now)
            self._put(SPEAKER_CHANNEL, replace(channel, counter=gated))
        elif port != CONTROL_PORT:
            number = CHANNEL_PORTS.index(port)
            self._put(number, self._channel(number).written(value, self._now))
        elif value >> 6 == READ_BACK:
            self._read_back(value)
        else:
            number = value >> 6
            self._put(number, self._channel(number).controlled(value, self._now))

    def _read_back(self, command: int) -> None:
        for number in range(len(CHANNEL_PORTS)):
            if not command >> (number + 1) & 1:
                continue
            channel = self._channel(number)
            if not command & READ_BACK_NO_STATUS:
                channel = channel.with_status_latched(self._now)
            if not command & READ_BACK_NO_COUNT:
                channel = channel.with_count_latched(self._now)
            self._put(number, channel)

    def _channel(self, number: int) -> Channel:
        """A channel with any waiting count taken over that is due by now."""
        channel = self.state.channels[number]
        return replace(channel, counter=channel.counter.settled(self._now))

    def _put(self, number: int, channel: Channel) -> None:
        first, second, third = self.state.channels
        if number == 0:
            first = channel
        elif number == 1:
            second = channel
        else:
            third = channel
        self.state = replace(self.state, channels=(first, second, third))
        if number == TIMER_IRQ:
            self._drive(self._now)

    def _drive(self, now: int) -> None:
        """Put channel 0's output at input clock ``now`` on its request line."""
        level = self.state.channels[0].counter.out(now)
        changed = level != self.state.line
        self.state = replace(self.state, driven=now, line=level)
        if changed:
            self._irq(TIMER_IRQ, level)

    def _next_edge(self) -> int | None:
        if self._edge_of is not self.state:
            self._edge_of, self._edge = self.state, self.state.channels[0].counter.next_edge(self.state.driven)
        return self._edge

    def next_deadline(self) -> int | None:
        """The tick at which channel 0's output may change next."""
        edge = self._next_edge()
        return None if edge is None else edge * TICKS_PER_PIT_CLOCK

    def advance(self, now: int) -> None:
        """Drive IRQ 0 through every edge at or before tick ``now``."""
        while (edge := self._next_edge()) is not None and edge * TICKS_PER_PIT_CLOCK <= now:
            first, second, third = self.state.channels
            first = replace(first, counter=first.counter.settled(edge))
            self.state = replace(self.state, channels=(first, second, third))
            self._drive(edge)

    def describe(self) -> list[tuple[str, str]]:
        """Mode, reload value, count and output of each channel."""
        rows = []
        for number in range(len(CHANNEL_PORTS)):
            counter = self._channel(number).counter
            reload = "not programmed" if counter.reload is None else f"reload {counter.reload}"
            level = "high" if counter.out(self._now) else "low"
            text = f"mode {counter.mode.value}, {reload}, count {counter.count(self._now)}, out {level}"
            rows.append((f"channel {number}", text))
        return [*rows, ("speaker port", f"{self.state.speaker:#04x}")]
