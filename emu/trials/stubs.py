"""The stubs of one word size as texts, and as images for any address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from emu import resources
from emu.assembler import Image, assemble_text
from emu.kexec.arch import Arch

NAMES = ("relocate_new_kernel", "jump_entry", "purgatory")


def folder_of(arch: Arch) -> str:
    """The folder of asm/ that serves ``arch``."""
    return "i386" if arch.bits == 32 else "x86_64"


def built_in(folder: str, name: str) -> Path:
    """The file of a built-in stub."""
    return resources.asm_dir() / folder / f"{name}.S"


@dataclass
class StubSet:
    """The three stubs of ``folder`` (``i386`` or ``x86_64``); ``texts`` replaces the source of some by name.

    Sources of x86_64 are assembled once and moved, since they are position independent, which a trial of its own
    checks; those of i386 are assembled for each address.
    """

    folder: str
    texts: Mapping[str, str] = field(default_factory=dict)
    _images: dict[tuple[str, int], Image] = field(default_factory=dict, repr=False)

    @property
    def bits(self) -> int:
        """32 or 64."""
        return 32 if self.folder == "i386" else 64

    def source(self, name: str) -> str:
        """The text of stub ``name``."""
        return self.texts.get(name) or built_in(self.folder, name).read_text(encoding="utf-8")

    def at(self, name: str, org: int) -> Image:
        """Stub ``name`` for physical address ``org``; raises AssemblyError where its text is wrong."""
        if self.bits == 64:
            return moved(self.assembled(name, 0), org)
        return self.assembled(name, org)

    def assembled(self, name: str, org: int) -> Image:
        """Stub ``name``, assembled for ``org`` itself."""
        if (name, org) not in self._images:
            path = built_in(self.folder, name)
            self._images[name, org] = assemble_text(
                self.source(name), str(path), org=org, bits=self.bits, include=(resources.asm_dir() / "include",)
            )
        return self._images[name, org]

    def with_text(self, name: str, text: str) -> StubSet:
        """The same stubs but for ``name``; what is assembled of the others already is shared."""
        kept = {key: image for key, image in self._images.items() if key[0] != name}
        return StubSet(self.folder, {**self.texts, name: text}, kept)


def moved(image: Image, org: int) -> Image:
    """A position-independent image as it would be for another address."""
    by = org - image.org
    return replace(
        image,
        org=org,
        symbols={name: address + by for name, address in image.symbols.items()},
        lines=tuple(replace(line, address=line.address + by) for line in image.lines),
    )
