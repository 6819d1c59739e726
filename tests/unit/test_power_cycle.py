"""Power off and on: devices and processor begin anew, time goes on."""

from __future__ import annotations

from emu.kexec.e820 import default_map
from emu.machine.machine import Machine
from emu.units import MIB

LSTAR = 0xC0000082


def test_devices_msrs_and_nmi_masking_are_as_at_power_on() -> None:
    machine = Machine(default_map(2 * MIB))
    before = machine.board.bus.snapshot(), machine.cpu.msrs()
    machine.count.pass_time(1234)
    machine.clock.now = machine.count.ticks
    machine.board.bus.write(0x43, 1, 0x34)
    machine.board.bus.write(0x40, 1, 0xA9)
    machine.board.bus.write(0x40, 1, 0x04)
    machine.board.bus.write(0x21, 1, 0xFE)
    machine.engine.set_msr(LSTAR, 0xFFFF800000001000)
    machine.cpu.nmi_blocked = machine.nmi_pending = True
    assert (machine.board.bus.snapshot(), machine.cpu.msrs()) != before
    machine.power_cycle()
    assert (machine.board.bus.snapshot(), machine.cpu.msrs()) == before
    assert not machine.cpu.nmi_blocked
    assert not machine.nmi_pending
    assert machine.count.ticks == 1234
