"""The stubs of one word size as texts, and as images for any address."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path

from emu import resources
from emu.assembler import Image, assemble_text
from emu.errors import AssemblyError
from emu.kexec.arch import Arch

_ELSEWHERE = 0x40000000
_WORD = 0xFFFFFFFF
NAMES = ("relocate_new_kernel", "jump_entry", "purgatory")


def folder_of(arch: Arch) -> str:
    """The folder of asm/ that serves ``arch``."""
    return "i386" if arch.bits == 32 else "x86_64"


def built_in(folder: str, name: str) -> Path:
    """The file of a built-in stub."""
    return resources.asm_dir() / folder / f"{name}.S"


@dataclass(frozen=True, slots=True)
class Damage:
    """``size`` bytes at ``offset`` of stub ``name`` become the instructions ``text``, filled up with NOPs."""

    name: str
    offset: int
    size: int
    text: str


@dataclass
class StubSet:
    """The three stubs of ``folder`` (``i386`` or ``x86_64``); ``texts`` replaces the source of some by name.

    A source is assembled for two addresses (one, where it does not matter: x86_64), which tells what in it depends on
    the address; for any other it is moved.  A trial compares with what is assembled there.
    """

    folder: str
    texts: Mapping[str, str] = field(default_factory=dict)
    damage: Damage | None = None
    _images: dict[tuple[str, int], Image] = field(default_factory=dict, repr=False)
    _damaged: dict[int, Image] = field(default_factory=dict, repr=False)

    @property
    def bits(self) -> int:
        """32 or 64."""
        return 32 if self.folder == "i386" else 64

    def source(self, name: str) -> str:
        """The text of stub ``name``."""
        return self.texts.get(name) or built_in(self.folder, name).read_text(encoding="utf-8")

    def at(self, name: str, org: int) -> Image:
        """Stub ``name`` for physical address ``org``; raises AssemblyError where its text is wrong."""
        image = self.assembled(name, 0)
        if self.bits == 64:
            return moved(image, org, ())
        return moved(image, org, absolute_words(image, self.assembled(name, _ELSEWHERE)))

    def assembled(self, name: str, org: int) -> Image:
        """Stub ``name``, assembled for ``org`` itself; raises AssemblyError where a damage takes more bytes."""
        if self.damage is not None and self.damage.name == name:
            if org not in self._damaged:
                self._damaged[org] = damaged(self._assembled(name, org), self.damage)
            return self._damaged[org]
        return self._assembled(name, org)

    def _assembled(self, name: str, org: int) -> Image:
        if (name, org) not in self._images:
            path = built_in(self.folder, name)
            self._images[name, org] = assemble_text(
                self.source(name), str(path), org=org, bits=self.bits, include=(resources.asm_dir() / "include",)
            )
        return self._images[name, org]

    def with_damage(self, damage: Damage) -> StubSet:
        """The same stubs but for a few bytes of one; what is assembled already is shared."""
        return StubSet(self.folder, self.texts, damage, self._images)

    def with_text(self, name: str, text: str) -> StubSet:
        """The same stubs but for ``name``; what is assembled of the others already is shared."""
        kept = {key: image for key, image in self._images.items() if key[0] != name}
        return StubSet(self.folder, {**self.texts, name: text}, None, kept)


def damaged(image: Image, damage: Damage) -> Image:
    """``image`` with the damage done to its bytes.

    Only the new instructions are assembled, among the labels of the image.  Raises AssemblyError where they are no
    code or take more bytes than there are.
    """
    places = sorted((address - image.org, name) for name, address in image.symbols.items())
    before = [(at, name) for at, name in places if at <= damage.offset]
    behind = [(at, name) for at, name in places if at > damage.offset]
    lines = [f".org {at:#x}\n{name}:" for at, name in before]
    lines += [f".org {damage.offset:#x}\n{damage.text}\ndamage_ends:\n.org {damage.offset + damage.size:#x}"]
    lines += [f".org {at:#x}\n{name}:" for at, name in behind]
    made = assemble_text("\n".join(lines) + "\n", image.name, org=image.org, bits=image.bits, defines=image.constants)
    end = made.symbols["damage_ends"] - made.org
    new = made.code[damage.offset : end].ljust(damage.size, b"\x90")
    code = image.code[: damage.offset] + new + image.code[damage.offset + damage.size :]
    return replace(image, code=code)


def absolute_words(image: Image, other: Image) -> tuple[int, ...]:
    """Offsets of the dwords that hold an address in ``image``, linked at 0; ``other`` is the same linked elsewhere."""
    found: list[int] = []
    by = other.org - image.org
    at = 0
    while at < min(len(image.code), len(other.code)):
        if image.code[at] == other.code[at]:
            at += 1
            continue
        start = next(
            (s for s in range(max(at - 3, 0), at + 1) if _word(other, s) == _word(image, s) + by & _WORD), None
        )
        if start is None:
            raise AssemblyError("depends on its address in a way that is no dword", file=image.name, line=1)
        found.append(start)
        at = start + 4
    return tuple(found)


def _word(image: Image, at: int) -> int:
    return int.from_bytes(image.code[at : at + 4], "little")


def moved(image: Image, org: int, words: tuple[int, ...]) -> Image:
    """``image``, linked at 0, as it would be for address ``org``; ``words`` are offsets of dwords with addresses."""
    code = bytearray(image.code)
    for at in words:
        code[at : at + 4] = (_word(image, at) + org & _WORD).to_bytes(4, "little")
    return replace(
        image,
        code=bytes(code),
        org=org,
        symbols={name: address + org for name, address in image.symbols.items()},
        lines=tuple(replace(line, address=line.address + org) for line in image.lines),
    )
