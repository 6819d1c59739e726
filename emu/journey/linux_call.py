"""Linux's own relocate_kernel as the stub of a journey: what machine_kexec lays down for it, and how it is called.

Sources: Linux arch/x86/kernel/machine_kexec_32.c and machine_kexec_64.c, before and after 6.14.  A calls the stub by
way of ``linux_caller`` (asm/), which does what machine_kexec does around the call.  The stub's bytes stay as they are.
"""

from __future__ import annotations

import hashlib
import struct
from dataclasses import dataclass
from typing import Final

from emu import resources
from emu.assembler import Image
from emu.errors import ImageError, JourneyError
from emu.journey import programs
from emu.journey.scene import Scene
from emu.kernelfile import KernelStub, StubForm
from emu.kernelfile.stub_of import FILLED
from emu.kexec.arch import Arch
from emu.kexec.image import KexecImage
from emu.kexec.page_tables import set_rox
from emu.kexec.table_copy import copy_with_page
from emu.machine.machine import Machine
from emu.machine.ram import Ram
from emu.units import PAGE_MASK, PAGE_SIZE, Linear, Phys, page_down
from emu.x86.segments import TableRegister

CALLER_PAGES: Final = 8
"""The caller's code, one page of the kernel's text or data, and tables: five levels at most, and one to spare."""
CALLER_PUSHES: Final = 24
"""Words that the caller and the stub that it calls push on A's stack."""
_VECTORS: Final = 16
_VECTOR_SIZE: Final = 6
_IDT_SELECTOR: Final = 0x10
_INTERRUPT_GATE: Final = 0x8E00
_GDTR_SIZE: Final = 10


@dataclass(frozen=True, slots=True)
class LinuxCall:
    """One load of Linux's stub.

    ``caller`` is linked at its physical page.  ``text`` is the linear page where A runs the stub's code, at physical
    ``text_page``, in tables of its own (classic x86_64; 0 elsewhere: it runs in the control page).
    """

    stub: KernelStub
    caller: Image
    control_page: int
    text: int = 0
    text_page: int = 0

    @property
    def entry_page(self) -> Phys:
        """The physical page of the caller."""
        return Phys(self.caller.org)

    def executed(self, ram: Ram) -> bytes:
        """The stub's code as it lies in the control page now, without its data."""
        return ram.read(self.control_page, len(code_of(self.stub)))

    def executed_sha256(self, ram: Ram) -> str:
        """The digest of :meth:`executed`; that of :func:`file_sha256` where it is the file's own."""
        return hashlib.sha256(self.executed(ram)).hexdigest()


def code_of(stub: KernelStub) -> bytes:
    """The bytes of the file that are code: what comes before the stub's data in the page."""
    return stub.code[: stub.data]


def file_sha256(stub: KernelStub) -> str:
    """The hex digest of the file's code."""
    return hashlib.sha256(code_of(stub)).hexdigest()


def check(stub: KernelStub, scene: Scene) -> None:
    """Raises ImageError or JourneyError where ``stub`` cannot be run in ``scene``."""
    if scene.handoff != "stack":
        raise ImageError(
            "has no restore_after_save, so nothing can enter A by the jump page", where=stub.name,
            hint="run it with --handoff stack",
        )  # fmt: skip
    if scene.transfer == "copy":
        raise JourneyError(
            f"{stub.name} cannot copy: Linux's stub exchanges source and destination whenever it preserves the context",
            where="--transfer",
            hint="swap, or reserved",
        )
    if stub.form is StubForm.X86_64 and stub.linear % PAGE_SIZE:
        raise ImageError(
            f"relocate_kernel at {stub.linear:#x} does not begin a page, so the transition mapping would not "
            "show it", where=stub.name,
        )  # fmt: skip


def text_of(stub: KernelStub) -> Linear | None:
    """The linear address that the transition tables map to the control page, where the form wants one."""
    return Linear(stub.linear) if stub.form is StubForm.X86_64 else None


def page_bytes(stub: KernelStub, image: KexecImage) -> bytes:
    """The control page's content: the file's bytes, and in the 6.14 form what machine_kexec_prepare fills."""
    if stub.form.is_classic:
        return stub.code
    page = bytearray(stub.code)
    values = (int(image.control_va), int(image.table_root), int(image.swap_page or 0))
    for name, value in zip(FILLED, values, strict=True):
        at = stub.parts[name]
        page[at : at + 8] = value.to_bytes(8, "little")
    if {"kexec_debug_idt", "kexec_debug_exc_vectors"} <= stub.parts.keys():
        idt, vectors = stub.parts["kexec_debug_idt"], int(image.control_page) + stub.parts["kexec_debug_exc_vectors"]
        for number in range(_VECTORS):
            to = vectors + number * _VECTOR_SIZE
            gate = struct.pack("<HHHHII", to & 0xFFFF, _IDT_SELECTOR, _INTERRUPT_GATE, to >> 16 & 0xFFFF, to >> 32, 0)
            page[idt + 16 * number : idt + 16 * number + 16] = gate
    return bytes(page)


def prepare(machine: Machine, scene: Scene, image: KexecImage, stub: KernelStub) -> LinuxCall:
    """Lay down the stub, its caller and what both need, and edit A's live tables; flushes nothing."""
    arch, ram = scene.arch, machine.ram
    page, other, *tables = image.caller_pages
    source = resources.asm_dir() / ("i386" if arch.bits == 32 else "x86_64") / "linux_caller.S"
    caller = programs.load(source, int(page), arch)
    ram.write(image.control_page, page_bytes(stub, image))
    control = int(image.control_page)
    _executable(machine, arch, arch.direct(page))
    if stub.form is StubForm.I386:
        _executable(machine, arch, image.control_va, writable=True)
        ram.write(page, _filled(caller, {"stub_entry": int(image.control_va) + stub.entry}, 4))
        return LinuxCall(stub, caller, control)
    words = {"caller_cr3": machine.cpu.cr3, "caller_rsi": control, "stub_entry": int(image.control_va) + stub.entry}
    seen: tuple[int, bytes] | None = None
    if stub.form is StubForm.X86_64:
        words["caller_rsi"] = int(arch.direct(page)) + caller.symbols["page_list"] - caller.org
        words["stub_entry"] = stub.linear
        words |= _page_list(image)
        seen = stub.linear, stub.code
    else:
        _executable(machine, arch, image.control_va)
        if stub.saved_context is not None:
            seen = _saved_gdtr(stub, sum(stub.saved_context), machine.cpu.gdtr)
    if seen is not None:
        linear, content = seen
        ram.write(other + (linear & PAGE_MASK), content)
        pages = iter(tables)
        words["caller_cr3"] = copy_with_page(
            arch, machine.cpu.cr3, page_down(linear), int(other), lambda: next(pages),
            read=lambda at: ram.read(at, PAGE_SIZE), write=ram.write,
        )  # fmt: skip
    ram.write(page, _filled(caller, words, 8))
    if stub.form is StubForm.X86_64:
        return LinuxCall(stub, caller, control, stub.linear, int(other))
    return LinuxCall(stub, caller, control)


def _page_list(image: KexecImage) -> dict[str, int]:
    """PA_CONTROL_PAGE, VA_CONTROL_PAGE, PA_TABLE_PAGE, PA_SWAP_PAGE, as words of the caller."""
    words = (image.control_page, image.control_va, image.table_root, image.swap_page or 0)
    return {f"page_list+{8 * number}": int(word) for number, word in enumerate(words)}


def _filled(caller: Image, words: dict[str, int], size: int) -> bytes:
    code = bytearray(caller.code)
    for place, value in words.items():
        name, _, offset = place.partition("+")
        at = caller.symbols[name] - caller.org + int(offset or "0")
        code[at : at + size] = value.to_bytes(size, "little")
    return bytes(code)


def _executable(machine: Machine, arch: Arch, linear: Linear, *, writable: bool = False) -> None:
    set_rox(machine.ram.read_int, machine.ram.write, machine.cpu.cr3, arch, linear, writable=writable)


def _saved_gdtr(stub: KernelStub, linear: int, gdtr: TableRegister) -> tuple[int, bytes]:
    """What save_processor_state has stored: A's GDTR, where the stub loads it from."""
    if (linear & PAGE_MASK) + _GDTR_SIZE > PAGE_SIZE:
        raise ImageError(f"keeps the GDTR at {linear:#x}, over the end of a page", where=stub.name)
    return linear, struct.pack("<HQ", gdtr.limit, gdtr.base)
