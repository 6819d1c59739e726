"""The standard set of devices, wired: request lines to the interrupt controllers, outcomes to the machine."""

from __future__ import annotations

from dataclasses import dataclass

from emu.machine.devices.bus import PortBus
from emu.machine.devices.busmaster import BusMaster, DmaWrite
from emu.machine.devices.clock import Clock
from emu.machine.devices.cmos import Cmos
from emu.machine.devices.debugcon import DebugConsole
from emu.machine.devices.exit import ExitPort
from emu.machine.devices.host import HostPort
from emu.machine.devices.pic import MASTER_DATA, Pic
from emu.machine.devices.pit import Pit
from emu.machine.devices.post import PostPort
from emu.machine.devices.serial import Serial
from emu.machine.devices.signals import SignalSink


@dataclass(frozen=True, slots=True)
class Board:
    """A PC's port bus and the devices on it that others ask by name."""

    clock: Clock
    bus: PortBus
    pic: Pic
    pit: Pit
    serial: Serial
    debugcon: DebugConsole
    post: PostPort
    cmos: Cmos
    busmaster: BusMaster

    def ask(self, line: int) -> None:
        """A device raises ``line``, 0 to 7, and no line of the first controller is masked: its interrupt waits."""
        self.bus.write(MASTER_DATA, 1, 0)
        self.pic.set_line(line, True)

    def snapshot(self) -> tuple[int, object]:
        """The clock and every device as one immutable value."""
        return self.clock.now, self.bus.snapshot()

    def restore(self, state: tuple[int, object]) -> None:
        """Set the clock and every device back; nothing is signalled and no line moves on the way."""
        self.clock.now, devices = state
        self.bus.restore(devices)


def pc_devices(clock: Clock, *, dma_write: DmaWrite, signal: SignalSink) -> Board:
    """Build the standard board on ``clock``.

    ``dma_write`` stores for the bus master; ``signal`` takes every outcome that concerns the machine.
    """
    bus = PortBus(clock)
    pic = Pic()
    board = Board(
        clock=clock,
        bus=bus,
        pic=pic,
        pit=Pit(clock, pic.set_line),
        serial=Serial(pic.set_line, signal),
        debugcon=DebugConsole(signal),
        post=PostPort(signal),
        cmos=Cmos(clock),
        busmaster=BusMaster(clock, dma_write),
    )
    for device in (board.pic, board.pit, board.serial, board.debugcon, board.post, board.cmos, board.busmaster):
        bus.attach(device)
    bus.attach(ExitPort(signal))
    bus.attach(HostPort(signal))
    return board
