"""Gates: functions of the engine's own that are replaced by ours while the engine runs guest code.

Translated code calls a function of the library for each instruction that is too large to translate (RDMSR, MOV to CR3,
SYSCALL ...).  A gate is a jump written over the first bytes of such a function.  The machine then sees these
instructions when they execute, and no code has to be searched for them: that is what makes an operating system run at
the engine's speed.

Gates are open only inside a run; between runs the library is as it was, for every other engine too.  While they are
open no other engine can run (:meth:`emu.machine.engine.Engine.run_alone`).  What is changed is this process's own copy
of the library's pages, which nobody else sees.

Wherever that cannot be done there is an EngineError: a library without these functions (:func:`function_at`), code that
a security module keeps from being changed, a host that is not x86-64 (:mod:`emu.machine.hostcode`).
"""

from __future__ import annotations

import ctypes
import mmap
from collections.abc import Iterable
from functools import cache
from typing import Any, Final

from emu.assembler.lengths import movable_size
from emu.errors import EngineError
from emu.machine.hostcode import executable, protect
from emu.units import PAGE_SIZE, page_down

_JUMP: Final = b"\x48\xb8%b\xff\x20"  # mov $record, %rax; jmp *(%rax)
_JUMP_SIZE: Final = 12
_WRITABLE: Final = mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC
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
    for page in {page_down(address), page_down(address + _JUMP_SIZE - 1)} - _PAGES:
        protect(page, PAGE_SIZE, _WRITABLE)
        _PAGES.add(page)


_LONGEST: Final = 15
_GO_ON: Final = b"\xff\x25\0\0\0\0"  # jmp *(the next eight bytes)


@cache
def behind(address: int) -> int:
    """Host code that does what the function at ``address`` does while a gate stands there: its own first instructions.

    EngineError where these cannot be moved.
    """
    code = ctypes.string_at(address, _JUMP_SIZE + _LONGEST)
    size = movable_size(code, _JUMP_SIZE)
    if not size:
        raise EngineError("a function of this Unicorn begins otherwise than known", hint="install unicorn==2.1.4")
    return executable(code[:size] + _GO_ON + (address + size).to_bytes(8, "little"))


class Gate:
    """One function of the library and what stands in for it: the host code of ``record``.

    ``record`` is the host address of what :meth:`emu.machine.blocks.Blocks.record` made; ``callback`` the ctypes
    function that decides there, if one does, which is kept alive here.
    """

    __slots__ = ("_callback", "_function", "_jump", "_original", "_view", "is_open", "name")

    def __init__(self, library: ctypes.CDLL, name: str, record: int, callback: Any) -> None:  # noqa: ANN401 - ctypes has no name for it
        address = function_at(library, name)
        _unlock(address)
        self.name = name
        self.is_open = False
        self._callback = callback
        self._function = None if callback is None else type(callback)(address)
        self._view = memoryview((ctypes.c_char * _JUMP_SIZE).from_address(address)).cast("B")
        self._original = bytes(self._view)
        self._jump = _JUMP % record.to_bytes(8, "little")

    def original(self, *arguments: object) -> None:
        """Call what stands behind the gate."""
        self.close()
        self.call(*arguments)
        self.open()

    def call(self, *arguments: object) -> None:
        """Call the function between runs, when the gate is closed."""
        if self._function is not None:
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


__all__ = ["Gate", "behind", "close_all", "function_at"]
