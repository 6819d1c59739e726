"""/dev/kvm runs an oracle's image, by ioctls and nothing else (Linux Documentation/virt/kvm/api.rst).

A KVM that is itself nested may interpret instructions instead of running them, and then lacks some: what such a KVM
cannot do is asked once, by images whose answer is known, and reported as a reason, never as agreement.
"""

from __future__ import annotations

import ctypes
import fcntl
import mmap
import os
import signal
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType

from emu.errors import KjumpError
from emu.oracle.image import EXIT_PORT, OracleImage
from emu.oracle.outcome import TIME_LIMIT, Ended, Run

DEVICE = Path("/dev/kvm")
_API_VERSION = 12

_GET_API_VERSION, _CREATE_VM, _GET_VCPU_MMAP_SIZE, _GET_SUPPORTED_CPUID = 0xAE00, 0xAE01, 0xAE04, 0xC008AE05
_CREATE_VCPU, _SET_USER_MEMORY_REGION, _SET_TSS_ADDR = 0xAE41, 0x4020AE46, 0xAE47
_CREATE_IRQCHIP, _CREATE_PIT2, _GET_MP_STATE = 0xAE60, 0x4040AE77, 0x8004AE98
_PIT_CONFIG_SIZE, _HALTED = 64, 3
_RUN, _GET_REGS, _SET_REGS, _GET_SREGS, _SET_SREGS, _SET_CPUID2 = (
    0xAE80, 0x8090AE81, 0x4090AE82, 0x8138AE83, 0x4138AE84, 0x4008AE90,
)  # fmt: skip
_REGS_SIZE, _SREGS_SIZE, _CPUID_ENTRIES, _CPUID_ENTRY_SIZE = 144, 312, 256, 40
_EXIT_IO, _EXIT_HLT, _EXIT_MMIO, _EXIT_SHUTDOWN, _EXIT_FAIL_ENTRY, _EXIT_INTERNAL_ERROR = 2, 5, 6, 8, 9, 17
_EXIT_REASON_AT, _UNION_AT = 8, 32
_IO = struct.Struct("<BBHIQ")
_TSS_ADDRESS = 0x7FFBD000
_COM1, _COM1_STATUS, _IDLE = 0x3F8, 0x3FD, 0x60
_ALARM_EVERY = 0.05


@dataclass(frozen=True, slots=True)
class _End:
    ended: Ended
    why: str = ""


def unusable() -> str:
    """Why KVM cannot be used at all; empty where it can."""
    if not DEVICE.exists():
        return f"there is no {DEVICE}"
    try:
        descriptor = os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)
    except OSError as error:
        return f"{DEVICE} cannot be opened: {error.strerror}"
    try:
        version = fcntl.ioctl(descriptor, _GET_API_VERSION)
    except OSError as error:
        return f"{DEVICE} does not answer: {error.strerror}"
    finally:
        os.close(descriptor)
    return "" if version == _API_VERSION else f"{DEVICE} speaks version {version}, not {_API_VERSION}"


class Vm:
    """One virtual machine with one processor and ``size`` bytes of RAM from 0.

    ``irqs``: it has KVM's own PIC and PIT too.
    """

    def __init__(self, size: int, *, irqs: bool = False) -> None:
        reason = unusable()
        if reason:
            raise KjumpError(reason, where="KVM")
        self.memory = mmap.mmap(-1, size)
        self.console = bytearray()
        self._open: list[int] = [os.open(DEVICE, os.O_RDWR | os.O_CLOEXEC)]
        kvm = self._open[0]
        try:
            self._vm = self._keep(fcntl.ioctl(kvm, _CREATE_VM, 0))
            fcntl.ioctl(self._vm, _SET_TSS_ADDR, _TSS_ADDRESS)
            host = ctypes.addressof(ctypes.c_char.from_buffer(self.memory))
            fcntl.ioctl(self._vm, _SET_USER_MEMORY_REGION, struct.pack("<IIQQQ", 0, 0, 0, size, host))
            if irqs:
                fcntl.ioctl(self._vm, _CREATE_IRQCHIP)
                fcntl.ioctl(self._vm, _CREATE_PIT2, bytes(_PIT_CONFIG_SIZE))
            self._irqs = irqs
            self._cpu = self._keep(fcntl.ioctl(self._vm, _CREATE_VCPU, 0))
            self._shared = mmap.mmap(self._cpu, fcntl.ioctl(kvm, _GET_VCPU_MMAP_SIZE))
            cpuid = bytearray(8 + _CPUID_ENTRIES * _CPUID_ENTRY_SIZE)
            struct.pack_into("<I", cpuid, 0, _CPUID_ENTRIES)
            fcntl.ioctl(kvm, _GET_SUPPORTED_CPUID, cpuid)
            fcntl.ioctl(self._cpu, _SET_CPUID2, cpuid)
        except OSError as error:
            self.close()
            raise KjumpError(f"no virtual machine: {error.strerror}", where=str(DEVICE)) from error

    def _keep(self, descriptor: int) -> int:
        self._open.append(descriptor)
        return descriptor

    def close(self) -> None:
        """Give the machine back to the kernel."""
        while self._open:
            os.close(self._open.pop())

    def enter_protected_mode(self, eip: int) -> None:
        """Flat 32-bit protected mode without paging at ``eip``, as a multiboot boot loader leaves it."""
        state = bytearray(_SREGS_SIZE)
        fcntl.ioctl(self._cpu, _GET_SREGS, state)
        segment = struct.Struct("<QIHBBBBBBBBBB")
        data = segment.pack(0, 0xFFFFFFFF, 0x10, 3, 1, 0, 1, 1, 0, 1, 0, 0, 0)
        code = segment.pack(0, 0xFFFFFFFF, 0x08, 11, 1, 0, 1, 1, 0, 1, 0, 0, 0)
        state[: 6 * segment.size] = code + 5 * data
        tables = 8 * segment.size
        struct.pack_into("<QH6xQH6x", state, tables, 0, 0, 0, 0)
        struct.pack_into("<6Q", state, tables + 32, 0x11, 0, 0, 0, 0, 0)
        fcntl.ioctl(self._cpu, _SET_SREGS, bytes(state))
        registers = struct.pack("<18Q", *([0] * 16), eip, 2)
        fcntl.ioctl(self._cpu, _SET_REGS, registers)

    @property
    def rip(self) -> int:
        """RIP of the stopped processor."""
        state = bytearray(_REGS_SIZE)
        fcntl.ioctl(self._cpu, _GET_REGS, state)
        return int(struct.unpack_from("<Q", state, 128)[0])

    def run(self, limit: float) -> _End:
        """Run until the exit port is written, or nothing more can happen, or ``limit`` seconds are over."""
        deadline = time.monotonic() + limit
        with _alarms():
            while time.monotonic() < deadline:
                try:
                    fcntl.ioctl(self._cpu, _RUN, 0)
                except InterruptedError:
                    if self._irqs and self._halted():
                        return _End(Ended.HUNG, f"halted at {self.rip:#x}")
                    continue
                except OSError as error:
                    return _End(Ended.FAILED, f"KVM_RUN: {error.strerror} at {self.rip:#x}")
                end = self._exit()
                if end is not None:
                    return end
        return _End(Ended.HUNG, f"no end after {limit:g} s, at {self.rip:#x}")

    def _halted(self) -> bool:
        """Whether the processor waits; with KVM's own controllers that is no exit."""
        state = bytearray(4)
        fcntl.ioctl(self._cpu, _GET_MP_STATE, state)
        return int(struct.unpack("<I", state)[0]) == _HALTED

    def _exit(self) -> _End | None:
        reason = int(struct.unpack_from("<I", self._shared, _EXIT_REASON_AT)[0])
        match reason:
            case 2:
                return self._port()
            case 5:
                return _End(Ended.HUNG, f"halted at {self.rip:#x}")
            case 6:
                address, length, write = struct.unpack_from("<Q8xIB", self._shared, _UNION_AT)
                if not write:
                    self._shared[_UNION_AT + 8 : _UNION_AT + 8 + length] = b"\xff" * length
                del address
                return None
            case 8:
                return _End(Ended.RESET, f"at {self.rip:#x}")
            case 9:
                code = struct.unpack_from("<Q", self._shared, _UNION_AT)[0]
                return _End(Ended.UNABLE, f"entry failed, hardware reason {code:#x}, at {self.rip:#x}")
            case 17:
                code = struct.unpack_from("<I", self._shared, _UNION_AT)[0]
                what = "cannot interpret an instruction" if code == 1 else f"internal error {code}"
                return _End(Ended.UNABLE, f"{what} at {self.rip:#x}")
            case _:
                return _End(Ended.FAILED, f"exit reason {reason} at {self.rip:#x}")

    def _port(self) -> _End | None:
        direction, size, port, count, offset = _IO.unpack_from(self._shared, _UNION_AT)
        area = slice(offset, offset + size * count)
        if direction == 0:
            answer = _IDLE if port == _COM1_STATUS else 0xFF
            self._shared[area] = bytes([answer]) * (size * count)
        elif port == _COM1:
            self.console += self._shared[area]
        elif port == EXIT_PORT:
            status = int.from_bytes(self._shared[area], "little")
            return _End(Ended.DONE) if status == 0 else _End(Ended.FAILED, f"exit status {status}")
        return None


@contextmanager
def _alarms() -> Iterator[None]:
    """Interrupt KVM_RUN now and then; in a thread other than the first there is no way to."""
    if threading.current_thread() is not threading.main_thread():
        raise KjumpError("runs in the main thread only", where="KVM")

    def wake(_number: int, _frame: FrameType | None) -> None:
        return None

    before = signal.signal(signal.SIGALRM, wake)
    signal.setitimer(signal.ITIMER_REAL, _ALARM_EVERY, _ALARM_EVERY)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)


def run_kvm(image: OracleImage, *, limit: float = TIME_LIMIT) -> Run:
    """Run ``image`` on KVM; raises KjumpError where there is no usable KVM."""
    vm = Vm(image.size, irqs=any(placed.case.irq for placed in image.cases))
    try:
        vm.memory[image.base : image.base + len(image.memory)] = bytes(image.memory)
        vm.enter_protected_mode(image.entry)
        began = time.perf_counter()
        end = vm.run(limit)
        seconds = time.perf_counter() - began
        memory = bytes(vm.memory)
    finally:
        vm.close()
    console = vm.console.decode("latin-1").replace("\r\n", "\n")
    return Run("KVM", end.ended, lambda address, size: memory[address : address + size], console, seconds, end.why)
