"""The devices of the machine: port bus, virtual time, and one small class for each device.

Start at :func:`pc_devices`.
"""

from emu.machine.devices.board import Board, pc_devices
from emu.machine.devices.bus import PortBus
from emu.machine.devices.clock import TICKS_PER_PIT_CLOCK, TICKS_PER_SECOND, Clock
from emu.machine.devices.device import Device
from emu.machine.devices.signals import ConsoleLine, DeviceSignal, ExitRequest, HostRequest, PostCode

__all__ = [
    "TICKS_PER_PIT_CLOCK",
    "TICKS_PER_SECOND",
    "Board",
    "Clock",
    "ConsoleLine",
    "Device",
    "DeviceSignal",
    "ExitRequest",
    "HostRequest",
    "PortBus",
    "PostCode",
    "pc_devices",
]
