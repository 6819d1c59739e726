"""From an address to the source line behind it, for every program that is in the machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from emu.assembler import Image


@dataclass(frozen=True, slots=True)
class Place:
    """A linear address for people: symbol+offset, and file:line with the source text where they are known."""

    address: int
    symbol: str
    file: str = ""
    line: int = 0
    source: str = ""

    def __str__(self) -> str:
        if not self.file:
            return self.symbol
        source = f" `{self.source}`" if self.source else ""
        return f"{self.path}:{self.line}: {self.symbol}{source}"

    @property
    def path(self) -> str:
        """The file as an editor started here opens it: relative where it is below this folder."""
        path = Path(self.file)
        return str(path.relative_to(Path.cwd())) if path.is_relative_to(Path.cwd()) else self.file

    @property
    def position(self) -> str:
        """``file:line`` without the folder, or the symbol where no line is known."""
        return f"{Path(self.file).name}:{self.line}" if self.file else self.symbol


@dataclass(frozen=True, slots=True)
class _Window:
    linear: int
    size: int
    image: Image


class Symbols:
    """Where each program's bytes are seen in linear memory; later additions hide earlier ones."""

    def __init__(self) -> None:
        self._windows: list[_Window] = []

    def add(self, image: Image, linear: int | None = None, size: int | None = None) -> None:
        """``image`` is seen at ``linear`` (its own link address by default)."""
        at = image.org if linear is None else linear
        self._windows.insert(0, _Window(at, size or max(len(image.code), 1), image))

    def image_at(self, address: int) -> tuple[Image, int] | None:
        """The program at linear ``address`` and the link address of that byte in it."""
        for window in self._windows:
            if window.linear <= address < window.linear + window.size:
                return window.image, address - window.linear + window.image.org
        return None

    def address_of(self, name: str, near: int = 0) -> int | None:
        """The linear address of symbol ``name``: of the program at linear ``near`` first, then of any."""
        here = self.image_at(near)
        found = self.all_addresses_of(name)
        same = [
            window.linear + window.image.symbols[name] - window.image.org
            for window in self._windows
            if here is not None and window.image is here[0] and name in window.image.symbols
            and window.linear <= near < window.linear + window.size
        ]  # fmt: skip
        return next(iter(same or found), None)

    def all_addresses_of(self, name: str) -> list[int]:
        """Every linear address at which a program shows symbol ``name``."""
        return [
            window.linear + window.image.symbols[name] - window.image.org
            for window in self._windows
            if name in window.image.symbols
        ]

    def addresses_of(self, file: str, line: int) -> list[int]:
        """Linear addresses of the first byte that each window has from ``file``:``line`` (file by its last parts)."""
        found = []
        for window in self._windows:
            for entry in window.image.lines:
                if entry.line == line and (entry.file == file or entry.file.endswith("/" + file)):
                    found.append(window.linear + entry.address - window.image.org)
                    break
        return found

    def names(self) -> list[str]:
        """Every symbol, for completion."""
        return sorted({name for window in self._windows for name in window.image.symbols})

    def place(self, address: int) -> Place:
        """The best description of linear ``address``."""
        found = self.image_at(address)
        if found is None:
            return Place(address, f"{address:#x}")
        image, linked = found
        symbol = image.symbol_at(linked)
        line = image.line_at(linked)
        if line is None:
            return Place(address, symbol)
        return Place(address, symbol, line.file, line.line, tidy(image.source_text(line)))


def tidy(source: str) -> str:
    """A source line without its comment, labels apart, and with single spaces."""
    text = source.split("#", maxsplit=1)[0]
    return " ".join(text.split())
