"""Target ``image``: the bytes of a hibernation image.  What is not exactly what was saved must be refused."""

from __future__ import annotations

import random
import shutil
import tempfile
from collections.abc import Sequence
from pathlib import Path

from emu.errors import ImageFileError
from emu.fuzz.case import Case
from emu.fuzz.fields import Choice, Word, Words
from emu.fuzz.plain import PlainWorld
from emu.fuzz.target import Target
from emu.fuzz.verdict import Result, Verdict
from emu.hibernate.memory import OldMemory
from emu.hibernate.reader import open_image
from emu.hibernate.record import ImageRecord, e820_digest
from emu.hibernate.writer import write_image
from emu.journey.scene import Scene
from emu.kexec.e820 import Range
from emu.units import MIB, PAGE_SIZE, Phys

WHOLE, UNREAD = "as saved", "bytes nobody reads"
_PAGES = 24
_KINDS = ("plain", "compressed")
_BYTE = 8


class ImageWorld(PlainWorld):
    """Images of a small memory, plain and compressed.  An edit is a word: offset in the file << 8 | new byte."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._scene = scene
        self._folder = Path(tempfile.mkdtemp(prefix="kjump-fuzz-"))
        noise = random.Random(1).randbytes(_PAGES * PAGE_SIZE)  # noqa: S311 - contents, not secrets
        half = _PAGES // 2 * PAGE_SIZE
        self._ranges = (
            Range(Phys(MIB), Phys(MIB + half)),
            Range(Phys(2 * MIB), Phys(2 * MIB + half)),
        )
        self._memory = {MIB: noise[:half], 2 * MIB: noise[half:]}
        self._files = {kind: self._save(kind) for kind in _KINDS}
        size = max(len(data) for data in self._files.values())
        edges = [0, 16, 64, 4096, *(len(data) - back for data in self._files.values() for back in (1, 512, 4096, 8192))]
        points = tuple(edge << _BYTE for edge in edges if edge >= 0)
        bits = size.bit_length() + _BYTE
        self.spec = (
            Choice("kind", _KINDS),
            Words("edits", Word("edit", bits, points, share=0.0), 32, (), 8),
            Word("length", size.bit_length(), tuple(edge for edge in edges if edge >= 0), (0,), 0.7),
        )
        self.rows = (WHOLE, UNREAD, "refused")

    def _read(self, address: int, size: int) -> bytes:
        base = max(start for start in self._memory if start <= address)
        return self._memory[base][address - base : address - base + size]

    def _save(self, kind: str) -> bytes:
        path = self._folder / kind
        digest = e820_digest(self._scene.memory_map)
        record = ImageRecord(1, self._scene.arch, digest, 0x1000, self._scene.handoff, "kernel of noise")
        old = OldMemory(self._read, self._ranges)
        write_image(path, old, self._ranges, record, compress=kind == "compressed")
        return path.read_bytes()

    def seeds(self) -> Sequence[Case]:
        """Both images as they were written."""
        neutral = Case("image", tuple((one.name, one.default) for one in self.spec))
        return [neutral.with_value("kind", kind) for kind in _KINDS]

    def file_of(self, case: Case) -> bytes:
        """The file that a case stands for; length 0 keeps the whole."""
        data = bytearray(self._files[case.word("kind")])
        for edit in case.words("edits"):
            at = (edit >> _BYTE) % len(data)
            data[at] = edit & 0xFF
        length = case.number("length")
        if length:
            del data[length:]
        return bytes(data)

    def run(self, case: Case) -> Result:
        """Write the file, open it as a restore kernel would, and compare all that it gives."""
        kind = case.word("kind")
        data = self.file_of(case)
        path = self._folder / "case"
        path.write_bytes(data)
        try:
            image = open_image(path)
            image.record.require(self._scene.arch, self._scene.memory_map)
            blocks = list(image.blocks())
        except ImageFileError as error:
            why = error.what.split(":")[0]
            self.covers("image", "".join(letter for letter in why if not letter.isdigit())[:40], 0)
            if data == self._files[kind]:
                return Result(Verdict.LOST, WHOLE, "a whole image is refused", "open_image", detail=str(error))
            return Result(Verdict.REFUSED, "refused", why, "open_image")
        row = WHOLE if data == self._files[kind] else UNREAD
        self.covers("image", row, 0)
        same = image.ranges == self._ranges and all(self._read(at, len(block)) == block for at, block in blocks)
        if not same or image.record.entry != 0x1000 or image.record.image_id != 1:
            return Result(Verdict.ACCEPTED, row, "another image than was saved", "open_image", past=True)
        return Result(Verdict.COMPLETED, row, past=True)

    def close(self) -> None:
        """Take the folder away."""
        shutil.rmtree(self._folder, ignore_errors=True)


TARGET = Target(
    "image",
    "the bytes of a hibernation image, plain and compressed, changed and cut",
    "what is opened gives exactly the memory, entry and id that were saved; everything else is refused",
    ImageWorld,
    transfers=(),
    handoffs=(),
)
