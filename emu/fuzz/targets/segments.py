"""Target ``segments``: the arguments of kexec_load, against rules written down a second time, and its list.

What is accepted is carried out by the reference model: every destination must get its bytes.
"""

from __future__ import annotations

from collections.abc import Sequence
from errno import EADDRNOTAVAIL, EFAULT, EINVAL, ENOMEM, errorcode

from emu.errors import LoadError
from emu.fuzz.case import Case
from emu.fuzz.fields import Blob, Choice, Word, Words, neutral
from emu.fuzz.plain import PlainWorld
from emu.fuzz.target import Target
from emu.fuzz.verdict import Result, Verdict
from emu.journey.scene import Scene
from emu.kexec.allocator import PageOwner, PagePool
from emu.kexec.arch import Arch
from emu.kexec.entry_list import Mode, apply, walk
from emu.kexec.image import KexecImage
from emu.kexec.layout import SEGMENT_MAX, LoadFlag
from emu.kexec.load import ARCH_MASK, ARCH_SHIFT, KexecState, LoadRequest, load
from emu.kexec.segments import Segment
from emu.units import PAGE_SIZE, Phys

ACCEPTED, UNLOAD = "accepted", "unload"
_KNOWN = int(LoadFlag.ON_CRASH | LoadFlag.PRESERVE_CONTEXT | LoadFlag.KJUMP)
_WORDS = 4
_MOST_BYTES = 1 << 20
_CONTENTS = 256
_UNREADABLE = 3
"""A ``buf`` word that is 0 modulo this stands for a pointer that cannot be read."""


class _Memory:
    """Physical memory that remembers what was written; the rest is a pattern of its page."""

    def __init__(self) -> None:
        self.pages: dict[int, bytes] = {}

    def read(self, address: int, size: int) -> bytes:
        page, offset = address & -PAGE_SIZE, address & (PAGE_SIZE - 1)
        content = self.pages.get(page)
        if content is None:
            content = (page ^ 0x5A5A5A5A).to_bytes(8, "little") * (PAGE_SIZE // 8)
        return content[offset : offset + size]

    def write(self, address: int, content: bytes) -> None:
        for at in range(0, len(content), PAGE_SIZE):
            self.pages[address + at] = content[at : at + PAGE_SIZE]


def _buffer(word: int, size: int, contents: bytes) -> bytes | None:
    """What the ``buf`` word of a segment points to: the contents again and again, begun at another place for each."""
    if word % _UNREADABLE == 0:
        return None
    at, wanted = word % len(contents), min(size, _MOST_BYTES)
    turned = contents[at:] + contents[:at]
    return (turned * (wanted // len(turned) + 1))[:wanted]


class SegmentsWorld(PlainWorld):
    """kexec_load on the machine of one scene."""

    def __init__(self, scene: Scene) -> None:
        super().__init__()
        self._arch: Arch = scene.arch
        self._map = scene.memory_map
        self._target = scene.target_range
        low = self._map.low_region()
        busy = {*self._target.pages(), *low.pages()}
        self._pool = PagePool.of_map(self._map, busy=busy)
        self._free = self._pool.snapshot()
        bits = 8 * scene.arch.word
        edges = [int(edge) for part in self._map.ranges for edge in (part.start, part.end)]
        edges += [int(self._target.start), int(self._target.end), int(low.end), scene.arch.destination_limit]
        sizes = [0, PAGE_SIZE, 2 * PAGE_SIZE, 3 * PAGE_SIZE, self._map.total_ram // 2, self._target.size]
        each = Word("word", bits, tuple(edge & (1 << bits) - 1 for edge in (*edges, *sizes)), tuple(sizes[:4]), 0.3)
        start = int(self._target.start)
        self._valid = (
            1,
            100,
            start,
            PAGE_SIZE,
            2,
            0,
            start + PAGE_SIZE,
            2 * PAGE_SIZE,
            4,
            5000,
            0x10000,
            2 * PAGE_SIZE,
        )
        self._native = scene.arch.machine << ARCH_SHIFT
        flags = tuple(flag | self._native for flag in (0, 1, 2, 3, 4, 0x100, 0x101, 0x102, 0x80))
        self.spec = (
            Words("segments", each, _WORDS * (SEGMENT_MAX + 2), (), 4 * _WORDS),
            Word("flags", 32, flags, (flags[0], 0x100 | self._native, 2 | self._native), 0.5, 0x100 | self._native),
            Word("entry", bits, (start, low.start, self._map.end_of_ram), (start,), 0.3),
            Choice("array", ("readable", "readable", "readable", "unreadable")),
            Blob("contents", bytes(_CONTENTS), _CONTENTS, _CONTENTS, noise=True),
        )
        self.rows = (ACCEPTED, UNLOAD, *(errorcode[code] for code in (EINVAL, EADDRNOTAVAIL, EFAULT, ENOMEM)))

    def seeds(self) -> Sequence[Case]:
        """A load that is right, and an unload."""
        plain = neutral("segments", self.spec)
        return [plain.with_value("segments", self._valid), plain]

    def segments_of(self, case: Case) -> tuple[Segment, ...] | None:
        """The segment array of a case."""
        if case.word("array") != "readable":
            return None
        words, contents = case.words("segments"), case.blob("contents")
        found = []
        for at in range(0, len(words) - _WORDS + 1, _WORDS):
            buf, bufsz, mem, memsz = words[at : at + _WORDS]
            found.append(Segment(_buffer(buf, bufsz, contents), bufsz, mem, memsz))
        return tuple(found)

    def run(self, case: Case) -> Result:
        """Load, and compare with what the rules say."""
        segments = self.segments_of(case)
        flags = case.number("flags")
        state = KexecState(self._arch, self._map, self._pool, target=self._target)
        self._pool.restore(self._free)
        memory = _Memory()
        allowed = self._allowed(segments, flags)
        request = LoadRequest(case.number("entry"), segments, flags)
        count = -1 if segments is None else len(segments)
        try:
            image = load(request, memory, state)
        except LoadError as error:
            name = errorcode.get(error.errno, str(error.errno))
            self.covers("load", name, count)
            if memory.pages or self._pool.snapshot() != self._free or state.image is not None:
                return Result(Verdict.SILENT, name, "changed by a failed load", "load", detail=str(error))
            if error.errno not in allowed:
                return Result(Verdict.MODEL, name, f"{name} not {_names(allowed)}", "load", detail=str(error))
            return Result(Verdict.REFUSED, name, name, "load", detail=str(error))
        if 0 not in allowed:
            return Result(Verdict.ACCEPTED, ACCEPTED, f"accepted, not {_names(allowed)}", "load", past=True)
        self.covers("load", ACCEPTED if image else UNLOAD, count)
        if image is None:
            return Result(Verdict.COMPLETED, UNLOAD, past=True)
        return self._accepted(image, memory, segments or ())

    # ---- the rules, once more ----------------------------------------------------------------------------------------

    def _allowed(self, segments: Sequence[Segment] | None, flags: int) -> set[int]:
        """The errors that a request may get, 0 for success; the first rule that is broken decides."""
        low = flags & ~ARCH_MASK
        if low & ~_KNOWN or (low & LoadFlag.ON_CRASH and low & ~int(LoadFlag.ON_CRASH)):
            return {EINVAL}
        if segments is not None and len(segments) > SEGMENT_MAX:
            return {EINVAL}
        if (flags & ARCH_MASK) >> ARCH_SHIFT not in (0, self._arch.machine):
            return {EINVAL}
        if segments is None:
            return {EFAULT}
        if not segments:
            return {0}
        if low & LoadFlag.ON_CRASH:
            return {EADDRNOTAVAIL}
        return self._allowed_list(segments, low)

    def _allowed_list(self, segments: Sequence[Segment], low: int) -> set[int]:
        for one in segments:
            end = one.mem + one.memsz
            if end >= 1 << self._arch.bits or (one.mem | end) % PAGE_SIZE or end >= self._arch.destination_limit:
                return {EADDRNOTAVAIL}
        spans = [(one.mem, one.mem + one.memsz) for one in segments if one.memsz]
        for number, (start, end) in enumerate(spans):
            if any(start < other_end and other < end for other, other_end in spans[:number]):
                return {EINVAL}
        if any(one.bufsz > one.memsz for one in segments):
            return {EINVAL}
        if sum(one.memsz // PAGE_SIZE for one in segments) > self._map.total_ram_pages // 2:
            return {EINVAL}
        if any(not self._all_ram(start, end) for start, end in spans):
            return {EADDRNOTAVAIL}
        if low & LoadFlag.KJUMP and any(not self._usable(start, end) for start, end in spans):
            return {EADDRNOTAVAIL}
        unreadable = any(one.bufsz and (one.buf is None or len(one.buf) < one.bufsz) for one in segments)
        return {EFAULT, ENOMEM} if unreadable else {0, ENOMEM}

    def _all_ram(self, start: int, end: int) -> bool:
        return all(self._map.is_ram(page // PAGE_SIZE) for page in range(start, end, PAGE_SIZE))

    def _usable(self, start: int, end: int) -> bool:
        low = self._map.low_region()
        inside = ((low.start, low.end), (self._target.start, self._target.end))
        return any(first <= start and end <= behind for first, behind in inside)

    # ---- what was accepted -------------------------------------------------------------------------------------------

    def _accepted(self, image: KexecImage, memory: _Memory, segments: Sequence[Segment]) -> Result:
        destinations = {page for one in segments for page in range(one.mem, one.mem + one.memsz, PAGE_SIZE)}
        owned = [
            pfn * PAGE_SIZE for owner, pfns in image.owners.items() if owner is not PageOwner.SOURCE for pfn in pfns
        ]
        if any(page in destinations for page in owned):
            return Result(Verdict.OWNER, ACCEPTED, "a control page is a destination", "load", past=True)
        if any(source in destinations and source != destination for destination, source in image.pairs):
            return Result(Verdict.OWNER, ACCEPTED, "a source is another's destination", "load", past=True)
        word = self._arch.word
        steps = list(walk(lambda at: int.from_bytes(memory.read(at, word), "little"), image.head, word))
        moved = apply(
            lambda page: memory.read(page, PAGE_SIZE), memory.write, steps, Mode.SWAP, Phys(image.swap_page or 0)
        )
        if moved != len(destinations):
            return Result(
                Verdict.MODEL, ACCEPTED, "pages moved", "load", detail=f"{moved} of {len(destinations)}", past=True
            )
        for one in segments:
            content = (one.buf or b"")[: one.bufsz]
            for at in range(0, one.memsz, PAGE_SIZE):
                wanted = content[at : at + PAGE_SIZE].ljust(PAGE_SIZE, b"\0")
                if memory.read(one.mem + at, PAGE_SIZE) != wanted:
                    detail = f"p:{one.mem + at:#x} does not get its bytes"
                    return Result(Verdict.MODEL, ACCEPTED, "content", "load", detail=detail, past=True)
        return Result(Verdict.COMPLETED, ACCEPTED, past=True)


def _names(codes: set[int]) -> str:
    return " or ".join(errorcode.get(code, "success") for code in sorted(codes))


TARGET = Target(
    "segments",
    "the arguments of kexec_load: segments, flags, entry",
    "the first broken rule decides the error, nothing changes; what is accepted gives every destination its bytes",
    SegmentsWorld,
    handoffs=(),
)
