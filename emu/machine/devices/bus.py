"""The port bus: who answers which I/O port, and when the next device event is due."""

from __future__ import annotations

from emu.machine.devices.clock import Clock
from emu.machine.devices.device import Device, StateDevice, all_ones

PORT_MASK = 0xFFFF


class PortBus:
    """The 64 Ki I/O ports of the machine.

    An access first brings every device up to the clock, so the order of events does not depend on how often
    the machine calls :meth:`advance`.
    """

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.devices: list[Device] = []
        self._timed: list[Device] = []  # those that may ever have a deadline
        self._owners: dict[int, Device] = {}

    def attach(self, device: Device) -> None:
        """Connect a device; raises ValueError when one of its ports is taken."""
        ports = list(device.ports())
        for port in ports:
            if port in self._owners:
                message = f"port {port:#x} of {device.name} already belongs to {self._owners[port].name}"
                raise ValueError(message)
        self.devices.append(device)
        if getattr(type(device), "next_deadline", None) is not StateDevice.next_deadline:
            self._timed.append(device)
        self._owners.update(dict.fromkeys(ports, device))

    def device_at(self, port: int) -> Device | None:
        """The device that answers ``port``, or None."""
        return self._owners.get(port & PORT_MASK)

    def read(self, port: int, size: int) -> int:
        """What IN of ``size`` bytes (1, 2 or 4) gives; bytes that nothing drives are all-ones."""
        self.advance(self.clock.now)
        device = self.device_at(port)
        if device is not None and size in device.sizes:
            return device.read(port & PORT_MASK, size) & all_ones(size)
        value = 0
        for offset in range(size):
            value |= self._read_byte(port + offset & PORT_MASK) << (8 * offset)
        return value

    def write(self, port: int, size: int, value: int) -> None:
        """What OUT of ``size`` bytes (1, 2 or 4) does; bytes that nothing takes are lost."""
        self.advance(self.clock.now)
        device = self.device_at(port)
        if device is not None and size in device.sizes:
            device.write(port & PORT_MASK, size, value & all_ones(size))
            return
        for offset in range(size):
            self._write_byte(port + offset & PORT_MASK, value >> (8 * offset) & 0xFF)

    def _read_byte(self, port: int) -> int:
        device = self._owners.get(port)
        return 0xFF if device is None or 1 not in device.sizes else device.read(port, 1) & 0xFF

    def _write_byte(self, port: int, value: int) -> None:
        device = self._owners.get(port)
        if device is not None and 1 in device.sizes:
            device.write(port, 1, value)

    def next_deadline(self) -> int | None:
        """The absolute tick of the earliest device event, or None when no device has one."""
        first = None
        for device in self._timed:
            due = device.next_deadline()
            if due is not None and (first is None or due < first):
                first = due
        return first

    def advance(self, now: int) -> None:
        """Do every device event due at or before tick ``now``, in order of time, then of attachment."""
        while (due := self.next_deadline()) is not None and due <= now:
            for device in self._timed:
                device.advance(due)

    def snapshot(self) -> object:
        """The state of all devices as one immutable value."""
        return tuple(device.snapshot() for device in self.devices)

    def restore(self, state: object) -> None:
        """Go back to a snapshot of this bus; raises TypeError for anything else."""
        if not isinstance(state, tuple) or len(state) != len(self.devices):
            message = "not a snapshot of this port bus"
            raise TypeError(message)
        for device, device_state in zip(self.devices, state, strict=True):
            if device.snapshot() is not device_state:  # states are replaced, never edited
                device.restore(device_state)

    def describe(self) -> list[tuple[str, list[tuple[str, str]]]]:
        """Each device's name with its label and value pairs, in order of attachment."""
        return [(device.name, device.describe()) for device in self.devices]
