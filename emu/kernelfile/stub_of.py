"""Linux's own relocate_kernel out of a kernel that somebody has: found, named and taken as it is."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Final

from emu.assembler import Image, disassemble, load_object
from emu.errors import ImageError
from emu.kernelfile.bzimage import SetupHeader, is_bzimage, payload, read_setup
from emu.kernelfile.decompress import decompress
from emu.kernelfile.forms import SIGNATURES, StubForm, follow, form_at, gdt_restored_from, has_slot
from emu.kernelfile.kallsyms import read_kallsyms
from emu.kernelfile.vmlinux import ELF_MAGIC, Vmlinux, read_vmlinux
from emu.units import MIB, PAGE_SIZE, show_size

ENTRY: Final = "relocate_kernel"
PAGE_START, PAGE_END = "__relocate_kernel_start", "__relocate_kernel_end"
FILLED: Final = ("kexec_va_control_page", "kexec_pa_table_page", "kexec_pa_swap_page")
"""6.14: the words of the page that machine_kexec_prepare fills."""
IN_PAGE: Final = (
    "identity_mapped", "virtual_mapped", "swap_pages", *FILLED, "saved_rsp", "saved_cr0", "saved_cr3", "saved_cr4",
    "pa_backup_pages_map", "kexec_debug_gdt", "kexec_debug_idt", "kexec_debug_exc_vectors",
)  # fmt: skip
OBJECT_CONTEXT: Final = 0xFFFF_FFFF_BF00_0000
"""Where saved_context is taken to be for an object, which the kernel's linker has not seen yet (linear)."""
LARGEST_FILE: Final = 640 * MIB
"""An unstripped vmlinux is mostly debugging information."""
_SECTION: Final = b".text..relocate_kernel\0"
_OURS: Final = b"\0restore_after_save\0"
_REL: Final = 1


@dataclass(frozen=True, slots=True)
class KernelStub:
    """Linux's relocate_kernel: ``code`` are the file's own bytes as they go to the start of the control page.

    ``entry`` and ``parts`` are offsets in it; ``linear`` is where the kernel is linked to have its first byte, 0 for an
    object.  ``slot``: the entry is pushed above the return address.  ``saved_context``: linear address, and offset in
    it of the GDTR that the stub loads on the way back (None: it loads none).
    """

    form: StubForm
    code: bytes
    entry: int
    parts: Mapping[str, int]
    linear: int
    version: str
    found_by: str
    name: str
    slot: bool = False
    saved_context: tuple[int, int] | None = None

    @property
    def sha256(self) -> str:
        """The hex digest of the file's bytes."""
        return hashlib.sha256(self.code).hexdigest()

    @property
    def bits(self) -> int:
        """32 or 64."""
        return self.form.bits

    @property
    def data(self) -> int:
        """The offset in the page from which on the stub keeps what it saves, and its stack."""
        words = [at for name, at in self.parts.items() if name.startswith(("saved_", "kexec_", "pa_"))
                 and name != "kexec_debug_exc_vectors"]  # fmt: skip
        return min(words, default=PAGE_SIZE // 2)

    def image(self, org: int) -> Image:
        """The stub as a program at ``org``, the start of its page."""
        symbols = {name: org + at for name, at in self.parts.items()}
        symbols |= {ENTRY: org + self.entry, "saved_context": org + self.data}
        return Image(self.code, org, self.bits, symbols, (), self.name)


@dataclass(frozen=True, slots=True, eq=False)
class KernelFile:
    """A file that holds a kernel, opened: ``header`` and ``compression`` only for a bzImage."""

    name: str
    kernel: Vmlinux
    header: SetupHeader | None
    compression: str
    size: int


def is_kernel(path: Path) -> bool:
    """Whether ``path`` holds Linux's code: a bzImage, a linked x86 ELF, or the object of a 6.14 relocate_kernel."""
    try:
        with path.open("rb") as file:
            head = file.read(PAGE_SIZE)
            if head.startswith(ELF_MAGIC) and head[16:18] == _REL.to_bytes(2, "little"):
                content = head + file.read(1 << 20)
                return _SECTION in content and _OURS not in content
    except OSError:
        return False
    return is_bzimage(head) or head.startswith(ELF_MAGIC)


def _content(path: Path) -> bytes:
    try:
        if path.stat().st_size > LARGEST_FILE:
            raise ImageError(f"is larger than {show_size(LARGEST_FILE)}, which is no kernel", where=str(path))
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=str(path)) from error


@lru_cache(maxsize=2)
def _open(path: Path, stamp: int) -> KernelFile:
    del stamp
    data, name = _content(path), str(path)
    if is_bzimage(data):
        header = read_setup(data, name)
        unpacked = decompress(payload(data, header, name), name)
        return KernelFile(name, read_vmlinux(unpacked.data, name), header, unpacked.format, len(data))
    if data.startswith(ELF_MAGIC):
        return KernelFile(name, read_vmlinux(data, name), None, "none", len(data))
    begins = f"it begins with {data[:4].hex(' ')}" if data else "it is empty"
    raise ImageError(f"is neither a bzImage nor an ELF file: {begins}", where=name, hint="pass a vmlinuz or vmlinux")


def open_kernel(path: Path) -> KernelFile:
    """The kernel in ``path``; raises ImageError for anything that is none, or is damaged."""
    try:
        stamp = path.stat().st_mtime_ns
    except OSError as error:
        raise ImageError(f"cannot be read: {error.strerror}", where=str(path)) from error
    return _open(path, stamp)


def find_stub(path: Path) -> KernelStub:
    """relocate_kernel of the kernel or object in ``path``; raises ImageError, which says what was found instead."""
    if is_kernel(path):
        with path.open("rb") as file:
            head = file.read(18)
        if head.startswith(ELF_MAGIC) and head[16:18] == _REL.to_bytes(2, "little"):
            return _of_object(path)
    return stub_in(open_kernel(path))


@lru_cache(maxsize=2)
def stub_in(file: KernelFile) -> KernelStub:
    """relocate_kernel of an opened kernel; raises ImageError."""
    kernel, name = file.kernel, file.name
    symbols, found_by = dict(kernel.symbols), ".symtab"
    if ENTRY not in symbols:
        symbols, found_by = read_kallsyms(kernel), "kallsyms"
    if ENTRY in symbols:
        linear = symbols[ENTRY]
    else:
        linear, found_by = _by_signature(kernel, name), "its first instructions"
    code = kernel.read(linear, PAGE_SIZE)
    form = form_at(code)
    if form is None or form.bits != kernel.bits:
        raise ImageError(_unknown(code, linear, kernel), where=name, hint="see docs/KERNELS.md for the forms")
    if form is StubForm.X86_64_6_14:
        stub = _of_page(kernel, symbols, linear, name)
    else:
        stub = _classic(code, form, linear, name)
    return replace(stub, version=kernel.version, found_by=found_by)


def _by_signature(kernel: Vmlinux, name: str) -> int:
    hits = [
        piece.address + at
        for form, signature in SIGNATURES.items()
        if form.bits == kernel.bits
        for piece, at in kernel.find(signature)
    ]
    if len(hits) != 1:
        found = f"{len(hits)} places begin like it" if hits else "no symbol names it and nothing begins like it"
        version = f"Linux {kernel.version}" if kernel.version else "an ELF file without a Linux version"
        raise ImageError(
            f"{version}, {kernel.bits}-bit: no relocate_kernel: {found}", where=name,
            hint="was it built with CONFIG_KEXEC?",
        )  # fmt: skip
    return hits[0]


def _unknown(code: bytes, linear: int, kernel: Vmlinux) -> str:
    first = "; ".join(step.text for step in disassemble(code[:48], linear, kernel.bits)[:8])
    return (
        f"Linux {kernel.version or '(no version)'}, {kernel.bits}-bit: relocate_kernel at {linear:#x} is of a form "
        f"that kjump does not know; it begins: {first or 'nothing: no bytes of the file are there'}"
    )


def _classic(code: bytes, form: StubForm, linear: int, name: str) -> KernelStub:
    parts = follow(code, form, linear)
    if parts is None:
        raise ImageError(
            f"relocate_kernel at {linear:#x} begins as the {form} form and does not go on as it", where=name
        )
    at = {"identity_mapped": parts.identity_mapped, "virtual_mapped": parts.virtual_mapped,
          "swap_pages": parts.swap_pages}  # fmt: skip
    return KernelStub(form, code[: parts.size], 0, at, linear, "", "", name)


def _of_page(kernel: Vmlinux, symbols: Mapping[str, int], linear: int, name: str) -> KernelStub:
    """6.14: from the start of the page's sections; needs the symbols of what the loader fills."""
    start = symbols.get(PAGE_START, linear)
    parts = {one: symbols[one] - start for one in IN_PAGE if 0 <= symbols.get(one, -1) - start < PAGE_SIZE}
    size = symbols.get(PAGE_END, 0) - start
    if not 0 < size <= PAGE_SIZE:
        size = max([*parts.values(), linear - start]) + 0x100
    _need(parts, name)
    code = kernel.read(start, size)
    return KernelStub(StubForm.X86_64_6_14, code, linear - start, parts, start, "", "", name, has_slot(code),
                      gdt_restored_from(code))  # fmt: skip


def _need(parts: Mapping[str, int], name: str) -> None:
    missing = [one for one in FILLED if one not in parts]
    if missing:
        raise ImageError(
            f"relocate_kernel of the {StubForm.X86_64_6_14} form, but no symbols {', '.join(missing)}: what the kernel "
            "fills before the jump cannot be filled", where=name, hint="a kernel with CONFIG_KALLSYMS_ALL has them",
        )  # fmt: skip


def _of_object(path: Path) -> KernelStub:
    image = load_object(path, externals={PAGE_START: 0, "saved_context": OBJECT_CONTEXT - (1 << 64)})
    if ENTRY not in image.symbols:
        raise ImageError(f"has the sections of the {StubForm.X86_64_6_14} form and no {ENTRY}", where=str(path))
    entry = image.symbols[ENTRY]
    form = form_at(image.code[entry:])
    parts = {one: image.symbols[one] for one in IN_PAGE if one in image.symbols}
    if form is not StubForm.X86_64_6_14 and not {"identity_mapped", "swap_pages"} <= parts.keys():
        first = "; ".join(step.text for step in disassemble(image.code[entry : entry + 48], entry, image.bits)[:8])
        raise ImageError(f"relocate_kernel is of a form that kjump does not know; it begins: {first}", where=str(path))
    _need(parts, str(path))
    return KernelStub(StubForm.X86_64_6_14, image.code, entry, parts, 0, "", "the object's symbols", str(path),
                      has_slot(image.code), gdt_restored_from(image.code))  # fmt: skip
