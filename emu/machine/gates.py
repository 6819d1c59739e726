"""Gates: functions of the engine's own that are replaced by ours while the engine runs guest code.

Translated code calls a function of the library for each instruction that is too large to translate (RDMSR, MOV to CR3,
SYSCALL ...).  A gate is a jump written over the first bytes of such a function.  The machine then sees these
instructions when they execute, and no code has to be searched for them: that is what makes an operating system run at
the engine's speed.  Gates are open only inside a run; between runs the library is as it was, for every other engine
too.

This works with the pinned release on x86-64 only; :func:`function_at` refuses a library without these symbols.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterable
from typing import Any, Final

from emu.errors import EngineError
from emu.units import PAGE_SIZE, page_down

_JUMP: Final = b"\x48\xb8%b\xff\xe0"  # mov $target, %rax; jmp *%rax
_JUMP_SIZE: Final = 12
_EXECUTABLE: Final = 7  # PROT_READ, PROT_WRITE and PROT_EXEC
_PAGES: set[int] = set()


def function_at(library: ctypes.CDLL, name: str) -> int:
    """The address of a function that ``library`` exports; EngineError where it has none of that name."""
    try:
        address = ctypes.cast(getattr(library, name), ctypes.c_void_p).value
    except AttributeError:
        address = None
    if not address:
        raise EngineError(f"this Unicorn has no function {name}", hint="install unicorn==2.1.4")
    return address


def _unlock(address: int) -> None:
    """Make the pages of the first bytes of a function writable."""
    libc = ctypes.CDLL(None, use_errno=True)
    for page in {page_down(address), page_down(address + _JUMP_SIZE - 1)} - _PAGES:
        if libc.mprotect(ctypes.c_void_p(page), ctypes.c_size_t(PAGE_SIZE), _EXECUTABLE):
            raise EngineError(
                f"the engine's code at {page:#x} cannot be changed: error {ctypes.get_errno()}",
                hint="a security module may forbid it: run kjump boot outside of it",
            )
        _PAGES.add(page)


class Gate:
    """One function of the library and what stands in for it; ``callback`` is a ctypes function, kept alive here."""

    __slots__ = ("_callback", "_function", "_jump", "_original", "_view", "is_open", "name")

    def __init__(self, library: ctypes.CDLL, name: str, callback: Any) -> None:  # noqa: ANN401 - ctypes has no name for it
        address = function_at(library, name)
        _unlock(address)
        self.name = name
        self.is_open = False
        self._callback = callback
        self._function = type(callback)(address)
        self._view = memoryview((ctypes.c_char * _JUMP_SIZE).from_address(address)).cast("B")
        self._original = bytes(self._view)
        target = ctypes.cast(callback, ctypes.c_void_p).value or 0
        self._jump = _JUMP % target.to_bytes(8, "little")

    def original(self, *arguments: object) -> None:
        """Call what stands behind the gate."""
        self.close()
        self._function(*arguments)
        self.open()

    def call(self, *arguments: object) -> None:
        """Call the function between runs, when the gate is closed."""
        self._function(*arguments)

    def open(self) -> None:
        """Calls come to us."""
        self._view[:] = self._jump
        self.is_open = True

    def close(self) -> None:
        """Calls go to the library again."""
        self._view[:] = self._original
        self.is_open = False


def close_all(gates: Iterable[Gate]) -> None:
    """Put the library back to what it was."""
    for gate in gates:
        if gate.is_open:
            gate.close()


__all__ = ["Gate", "close_all", "function_at"]
