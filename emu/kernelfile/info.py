"""What ``kjump kernel info`` tells of a kernel."""

from __future__ import annotations

from pathlib import Path
from typing import Final

from emu.errors import ImageError
from emu.filekind import FileKind
from emu.kernelfile.bzimage import is_bzimage
from emu.kernelfile.stub_of import KernelStub, find_stub, is_kernel, open_kernel, stub_in

_Value = str | int | bool | None | dict[str, int] | dict[str, object]


def kernel_info(path: Path) -> dict[str, _Value]:
    """The kernel in ``path`` as plain data; ``stub`` is a table, or None with ``no_stub`` saying why.

    Raises ImageError where ``path`` holds no kernel.
    """
    if is_kernel(path):
        stub = _object(path)
        if stub is not None:
            return {"file": str(path), "bits": stub.bits, "compression": "none", "stub": _stub(stub)}
    file = open_kernel(path)
    told: dict[str, _Value] = {
        "file": str(path),
        "size": file.size,
        "version": file.kernel.version or (file.header.kernel_version if file.header else ""),
        "bits": file.kernel.bits,
        "compression": file.compression,
    }
    if file.header is not None:
        header = file.header
        told["header"] = {
            "protocol": header.protocol,
            "setup_sects": header.setup_sects,
            "payload_offset": header.payload_offset,
            "payload_length": header.payload_length,
            "pref_address": header.pref_address,
            "init_size": header.init_size,
            "xloadflags": header.xloadflags,
            "relocatable": header.relocatable,
        }
    try:
        told["stub"] = _stub(stub_in(file))
    except ImageError as error:
        told["stub"] = None
        told["no_stub"] = error.what
    return told


def _object(path: Path) -> KernelStub | None:
    with path.open("rb") as file:
        return find_stub(path) if file.read(18)[16:18] == b"\1\0" else None


def _stub(stub: KernelStub) -> dict[str, object]:
    return {
        "form": str(stub.form),
        "linear": stub.linear,
        "entry": stub.entry,
        "size": len(stub.code),
        "found_by": stub.found_by,
        "parts": dict(sorted(stub.parts.items(), key=lambda part: part[1])),
        "slot": stub.slot,
        "restores_gdt": stub.saved_context is not None,
        "sha256": stub.sha256,
    }


def kernel_text(told: dict[str, _Value]) -> str:
    """The same for people."""
    lines = [f"{told['file']}"]
    lines.append(
        f"  Linux {told.get('version') or '(no version)'}, {told['bits']}-bit, packed with {told['compression']}"
    )
    header = told.get("header")
    if isinstance(header, dict):
        lines.append(
            f"  boot protocol {header['protocol']}, payload {header['payload_length']:#x} bytes, "
            f"preferred address p:{header['pref_address']:#x}, init_size {header['init_size']:#x}"
        )
    stub = told.get("stub")
    if not isinstance(stub, dict):
        return "\n".join([*lines, f"  no stub that can run here: {told.get('no_stub')}"])
    where = f" at {stub['linear']:#x}" if stub["linear"] else ""
    lines.append(f"  relocate_kernel{where}: {stub['form']} form, {stub['size']} bytes, found by {stub['found_by']}")
    parts = stub["parts"]
    if isinstance(parts, dict):
        lines += [f"    {name:<24}+{at:#x}" for name, at in parts.items()]
    lines.append(f"  sha256 {stub['sha256']}")
    return "\n".join(lines)


def _describe(path: Path) -> tuple[dict[str, _Value], list[str]]:
    told = kernel_info(path)
    return told, [line.removeprefix("  ") for line in kernel_text(told).splitlines()[1:]]


KERNEL_KIND: Final = FileKind("a kernel", lambda start: start.startswith(b"\x7fELF") or is_bzimage(start), _describe)
