"""Claim files: their header, and the claims that an assembled one has in a mode.

``asm/tests/claims.inc`` is the other half: its macro ``claim`` puts a record before each claim, which is read here.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path

from emu import resources
from emu.assembler import Image, assemble
from emu.errors import ImageError
from emu.suite.modes import Mode

PROGRAM = 0x8000
CLAIM_MARK = 0x4D414C43
_FIELDS = ("name", "changes", "ends", "driven", "xfail", "only")
_KEY = re.compile(r"#\s*(modes|stubs|may change|world):\s*(.*)$")
_MORE = re.compile(r"#\s{6,}(\S.*)$")
STUB_NAMES = ("relocate_new_kernel", "jump_entry", "purgatory")


@dataclass(frozen=True, slots=True)
class Claim:
    """One named claim.

    ``changes`` are the words of header and claim together; ``ends`` how it ends where that is not by ``holds``,
    ``driven`` who interferes from outside the machine; ``xfail`` the reason why it is expected to fail, ``only`` the
    reason why no other machine can run it.
    """

    name: str
    address: int
    changes: tuple[str, ...] = ()
    ends: str = ""
    driven: str = ""
    xfail: str = ""
    only: str = ""
    line: int = 0

    @property
    def sentence(self) -> str:
        """The claim as one reads it."""
        return self.name.replace("_", " ")


@dataclass(frozen=True, slots=True)
class ClaimFile:
    """A claim file as its header describes it."""

    path: Path
    topic: str
    modes: tuple[Mode, ...]
    stubs: tuple[str, ...]
    changes: tuple[str, ...]

    @property
    def name(self) -> str:
        """The topic's short name."""
        return self.path.stem

    def image(self, mode: Mode) -> Image:
        """The program for ``mode``; raises AssemblyError."""
        return _assemble(self.path, mode, self.path.stat().st_mtime_ns)

    def claims(self, mode: Mode) -> tuple[Claim, ...]:
        """The claims that the file has in ``mode``, in its order; raises AssemblyError or ImageError."""
        return _claims(self, mode, self.path.stat().st_mtime_ns)


def tests_dir() -> Path:
    """Where the suite's own claim files are."""
    return resources.asm_dir() / "tests"


def own_files() -> tuple[ClaimFile, ...]:
    """The suite's own claim files."""
    return tuple(read_header(path) for path in sorted(tests_dir().glob("*.S")))


def read_header(path: Path) -> ClaimFile:
    """The header of the claim file ``path``.

    Raises:
        ImageError: the file cannot be read, or its header names no mode, an unknown one, or an unknown stub.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ImageError(f"cannot be read: {error}", where=str(path)) from error
    keys = _header_keys(text)
    modes = []
    for word in _words(keys.get("modes", "")):
        if word not in tuple(Mode):
            raise ImageError(f"no mode is called {word}", where=str(path), hint=f"one of {', '.join(Mode)}")
        modes.append(Mode(word))
    if not modes:
        raise ImageError(
            "is no claim file: its header names no modes",
            where=str(path),
            hint=f"a comment line `# modes: ...`, of {', '.join(Mode)}",
        )
    stubs = _words(keys.get("stubs", ""))
    for name in stubs:
        if name not in STUB_NAMES:
            raise ImageError(f"no stub is called {name}", where=str(path), hint=f"one of {', '.join(STUB_NAMES)}")
    topic = text.splitlines()[0].lstrip("# ").rstrip(".")
    return ClaimFile(path, topic, tuple(modes), stubs, _words(keys.get("may change", "")))


def _header_keys(text: str) -> dict[str, str]:
    keys: dict[str, str] = {}
    last = ""
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        if found := _KEY.match(line):
            last = found[1]
            keys[last] = found[2]
        elif last and (more := _MORE.match(line)):
            keys[last] += f" {more[1]}"
        else:
            last = ""
    return keys


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.replace(",", " ").split())


@lru_cache(maxsize=128)
def _assemble(path: Path, mode: Mode, stamp: int) -> Image:
    del stamp  # part of the key: a file that changed is assembled again
    include = [resources.asm_dir() / "include", tests_dir(), resources.kernels_dir()]
    return assemble(path, org=PROGRAM, bits=mode.assembled_as, defines=mode.defines, include=include)


@lru_cache(maxsize=128)
def _claims(file: ClaimFile, mode: Mode, stamp: int) -> tuple[Claim, ...]:
    image = _assemble(file.path, mode, stamp)
    found = [_claim(file, image, name, address) for name, address in image.symbols.items() if _marked(image, address)]
    if not found:
        raise ImageError("has no claim in this mode", where=str(file.path), hint="claim NAME ... holds")
    return tuple(sorted(found, key=lambda claim: claim.address))


def _marked(image: Image, address: int) -> bool:
    at = address - image.org
    return at >= 4 and image.code[at - 4 : at] == CLAIM_MARK.to_bytes(4, "little")


def _claim(file: ClaimFile, image: Image, name: str, address: int) -> Claim:
    fields: dict[str, str] = {}
    record = address - image.org - 4 * len(_FIELDS) - 4
    for number, field in enumerate(_FIELDS):
        at = int.from_bytes(image.code[record + 4 * number :][:4], "little") - image.org
        fields[field] = image.code[at : image.code.index(0, at)].decode()
    return Claim(
        name=name,
        address=address,
        changes=(*file.changes, *_words(fields["changes"])),
        ends=fields["ends"],
        driven=fields["driven"],
        xfail=fields["xfail"],
        only=fields["only"],
        line=_line_of(image, address),
    )


def _line_of(image: Image, address: int) -> int:
    """The line of the claim: where its record was asked for."""
    line = image.line_at(address - 4)
    if line is None:
        return 0
    return int(line.called_first.rpartition(":")[2]) if line.called_first else line.line
