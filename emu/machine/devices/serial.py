"""The first serial port, COM1: a 16550A at 0x3f8 that interrupts on IRQ 4.

A byte is transmitted at once whatever the divisor says, so the transmitter is always empty and a guest that
polls LSR never waits (unless the port is made ``slow``, to see that a guest does wait).  Input waits on the other
side of the wire, as with hardware flow control, until the receiver has room: it is never lost.  Source: National
PC16550D data sheet.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

from emu.machine.devices.console import Console
from emu.machine.devices.device import StateDevice
from emu.machine.devices.signals import IrqLine, SignalSink

COM1_PORT = 0x3F8
COM1_IRQ = 4

DATA, IER, IIR_FCR, LCR, MCR, LSR, MSR, SCRATCH = range(8)

IER_RX = 0x01
IER_THRE = 0x02
IER_LINE = 0x04
IER_MODEM = 0x08
IER_MASK = 0x0F
IIR_NONE = 0x01
IIR_MODEM = 0x00
IIR_THRE = 0x02
IIR_RX = 0x04
IIR_LINE = 0x06
IIR_TIMEOUT = 0x0C
IIR_FIFO = 0xC0
FCR_ENABLE = 0x01
FCR_CLEAR_RX = 0x02
LCR_DLAB = 0x80
MCR_OUT2 = 0x08
MCR_LOOP = 0x10
MCR_MASK = 0x1F
LSR_DATA_READY = 0x01
LSR_OVERRUN = 0x02
LSR_TRANSMITTER_EMPTY = 0x60
MSR_CONNECTED = 0xB0
"""CTS, DSR and DCD: somebody is at the other end of the cable."""
MSR_RI = 0x40
MSR_ANY_CHANGE = 0xB0
"""The inputs of which either edge is a change; RI counts only when it falls."""

FIFO_DEPTH = 16
TRIGGER_LEVELS = (1, 4, 8, 14)


@dataclass(frozen=True, slots=True)
class SerialState:
    """The registers; ``waiting`` is input that the receiver has not taken, ``thre`` a pending THRE interrupt."""

    ier: int = 0
    fcr: int = 0
    lcr: int = 0
    mcr: int = 0
    msr: int = MSR_CONNECTED
    scratch: int = 0
    divisor: int = 12
    received: bytes = b""
    waiting: bytes = b""
    overrun: bool = False
    thre: bool = False
    line: bool = False
    sending: bool = False

    @property
    def depth(self) -> int:
        """How many bytes the receiver holds."""
        return FIFO_DEPTH if self.fcr & FCR_ENABLE else 1

    def filled(self) -> SerialState:
        """With as much waiting input taken as there is room for; in loopback the wire is cut."""
        room = self.depth - len(self.received)
        if self.mcr & MCR_LOOP or room <= 0 or not self.waiting:
            return self
        return replace(self, received=self.received + self.waiting[:room], waiting=self.waiting[room:])

    def cause(self) -> int:
        """The pending interrupt of highest priority as IIR shows it, without the FIFO bits."""
        if self.ier & IER_LINE and self.overrun:
            return IIR_LINE
        if self.ier & IER_RX and self.received:
            if not self.fcr & FCR_ENABLE or len(self.received) >= TRIGGER_LEVELS[self.fcr >> 6]:
                return IIR_RX
            return IIR_TIMEOUT
        if self.ier & IER_THRE and self.thre:
            return IIR_THRE
        if self.ier & IER_MODEM and self.msr & 0x0F:
            return IIR_MODEM
        return IIR_NONE

    def with_modem_control(self, value: int) -> SerialState:
        """MCR written; in loopback its four outputs become the four modem inputs."""
        inputs = MSR_CONNECTED
        if value & MCR_LOOP:
            dtr, rts, out1, out2 = (value >> bit & 1 for bit in range(4))
            inputs = rts << 4 | dtr << 5 | out1 << 6 | out2 << 7
        changes = (self.msr ^ inputs) & MSR_ANY_CHANGE | self.msr & ~inputs & MSR_RI
        return replace(self, mcr=value & MCR_MASK, msr=inputs | self.msr & 0x0F | changes >> 4)


class Serial(StateDevice[SerialState]):
    """A 16550A; what it transmits is :attr:`output` and a ConsoleLine for each line."""

    name = "serial"

    def __init__(self, irq: IrqLine, signal: SignalSink) -> None:
        super().__init__(SerialState())
        self._irq = irq
        self.console = Console(self.name, signal)
        self.slow = False
        """Whether the transmitter is found busy every other time that it is asked."""

    @property
    def output(self) -> bytes:
        """Every byte transmitted so far, loopback excepted."""
        return self.console.output

    def feed(self, data: bytes) -> None:
        """Input for the guest, as if typed at the other end."""
        self._put(replace(self.state, waiting=self.state.waiting + data))

    def ports(self) -> Iterable[int]:
        """0x3f8 to 0x3ff."""
        return range(COM1_PORT, COM1_PORT + 8)

    def _put(self, state: SerialState) -> None:
        """Take over a state, let input follow, and drive the request line, which OUT2 gates."""
        state = state.filled()
        level = state.cause() != IIR_NONE and bool(state.mcr & MCR_OUT2) and not state.mcr & MCR_LOOP
        changed = level != state.line
        self.state = replace(state, line=level)
        if changed:
            self._irq(COM1_IRQ, level)

    def read(self, port: int, size: int) -> int:
        """A register; RBR, IIR, LSR and MSR change state by being read."""
        state, register = self.state, port - COM1_PORT
        latch = state.lcr & LCR_DLAB
        match register:
            case 0 if latch:
                return state.divisor & 0xFF
            case 0:
                return self._receive()
            case 1:
                return state.divisor >> 8 if latch else state.ier
            case 2:
                return self._identify()
            case 3:
                return state.lcr
            case 4:
                return state.mcr
            case 5:
                if state.overrun:
                    self._put(replace(state, overrun=False))
                ready = LSR_DATA_READY if state.received else 0
                if self.slow:
                    self._put(replace(self.state, sending=not state.sending))
                    if not state.sending:
                        return ready
                return LSR_TRANSMITTER_EMPTY | ready | (LSR_OVERRUN if state.overrun else 0)
            case 6:
                if state.msr & 0x0F:
                    self._put(replace(state, msr=state.msr & 0xF0))
                return state.msr
            case _:
                return state.scratch

    def _receive(self) -> int:
        received = self.state.received
        if not received:
            return 0
        self._put(replace(self.state, received=received[1:]))
        return received[0]

    def _identify(self) -> int:
        """IIR; a THRE interrupt is over once it was read here."""
        cause = self.state.cause()
        if cause == IIR_THRE:
            self._put(replace(self.state, thre=False))
        return cause | (IIR_FIFO if self.state.fcr & FCR_ENABLE else 0)

    def write(self, port: int, size: int, value: int) -> None:
        """A register.  LSR and MSR take no writes."""
        state, register = self.state, port - COM1_PORT
        latch = state.lcr & LCR_DLAB
        match register:
            case 0 if latch:
                self._put(replace(state, divisor=state.divisor & 0xFF00 | value))
            case 0:
                self._transmit(value)
            case 1 if latch:
                self._put(replace(state, divisor=state.divisor & 0xFF | value << 8))
            case 1:
                enabled = value & ~state.ier & IER_THRE
                self._put(replace(state, ier=value & IER_MASK, thre=state.thre or bool(enabled)))
            case 2:
                self._control_fifo(value)
            case 3:
                self._put(replace(state, lcr=value))
            case 4:
                self._put(state.with_modem_control(value))
            case 7:
                self._put(replace(state, scratch=value))

    def _transmit(self, value: int) -> None:
        """The holding register fills and is empty again at once: its interrupt falls and rises."""
        if self.state.ier & IER_THRE:
            self._put(replace(self.state, thre=False))
        state = self.state
        if not state.mcr & MCR_LOOP:
            self.console.put(value)
            if state.thre:
                return
        elif len(state.received) < state.depth:
            state = replace(state, received=state.received + bytes((value,)))
        else:
            state = replace(state, overrun=True)
        self._put(replace(state, thre=True))

    def _control_fifo(self, value: int) -> None:
        """FCR; turning the FIFO on or off empties it, and without the enable bit the others are not taken."""
        state = self.state
        toggled = (value ^ state.fcr) & FCR_ENABLE
        if toggled or (value & FCR_ENABLE and value & FCR_CLEAR_RX):
            state = replace(state, received=b"")
        self._put(replace(state, fcr=value & 0xC9 if value & FCR_ENABLE else 0))

    def snapshot(self) -> object:
        """The registers and the output."""
        return self.state, self.console.snapshot()

    def restore(self, state: object) -> None:
        """Go back to a snapshot; TypeError for anything else."""
        match state:
            case (SerialState() as registers, bytes() as written):
                self.state = registers
                self.console.restore(written)
            case _:
                message = f"{self.name}: {type(state).__name__} is not a state of this device"
                raise TypeError(message)

    def describe(self) -> list[tuple[str, str]]:
        """Registers and the amounts of input and output."""
        state = self.state
        return [
            ("ier", f"{state.ier:#04x}"),
            ("lcr", f"{state.lcr:#04x}, divisor {state.divisor}"),
            ("mcr", f"{state.mcr:#04x}"),
            ("fifo", f"{'on' if state.fcr & FCR_ENABLE else 'off'}, {len(state.received)} bytes received"),
            ("input waiting", f"{len(state.waiting)} bytes"),
            ("written", f"{len(self.output)} bytes"),
            ("unfinished line", self.console.unfinished),
        ]
