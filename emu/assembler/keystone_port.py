"""The one door to Keystone: a single instruction in, its bytes out.

Keystone is only ever given one instruction whose text was built here, with every number in hexadecimal.  Whole
sources never reach it, because on them it reads decimals as hexadecimal, drops statements, reads host files, and
on some directives aborts or hangs the process.
"""

from __future__ import annotations

import re
from functools import lru_cache

import keystone

_MODES = {16: keystone.KS_MODE_16, 32: keystone.KS_MODE_32, 64: keystone.KS_MODE_64}
_SAFE = re.compile(r"[a-z][a-z0-9]*( [-$%*:(), 0-9a-z]*)?")
_ENGINES: dict[int, keystone.Ks] = {}


class RejectedError(Exception):
    """Raised when Keystone does not take an instruction; the text is its reason."""


def _engine(bits: int) -> keystone.Ks:
    if bits not in _ENGINES:
        engine = keystone.Ks(keystone.KS_ARCH_X86, _MODES[bits])
        engine.syntax = keystone.KS_OPT_SYNTAX_ATT
        _ENGINES[bits] = engine
    return _ENGINES[bits]


@lru_cache(maxsize=65536)
def machine_code(text: str, bits: int) -> bytes:
    """The bytes of the AT&T instruction ``text``, whose numbers are all hexadecimal.

    Raises:
        RejectedError: Keystone refuses it, or emits nothing for it.
    """
    if not _SAFE.fullmatch(text):
        raise RejectedError("not a plain instruction")
    try:
        code, _ = _engine(bits).asm(text, 0, True)
    except keystone.KsError as error:
        raise RejectedError(re.sub(r"\s*\(KS_ERR_\w+\)", "", str(error)).lower()) from error
    if not code:
        raise RejectedError("it is dropped without a byte")
    return bytes(code)
