"""Descriptor tables that give segment registers their recorded hidden parts, whatever becomes of the case's own.

The tables in force need not be mapped where a case begins, nor hold what the segment registers were loaded from (SDM 3A
3.4.3: the hidden parts stay until the next load).
"""

from __future__ import annotations

from collections.abc import Mapping

TABLE_SIZE = 256
LOCAL_TABLE_SIZE = 32
LOCAL_TABLE_SELECTOR = 0xF0
"""Selects the local table for as long as segment registers are loaded; LDTR then gets its own."""
_SEGMENTS = ("cs", "ss", "ds", "es", "fs", "gs")
_ATTRIBUTES = 0x00F0FF00
_GRANULARITY = 1 << 23
_BUSY = 1 << 9
_LDT = 0x8200
_LOCAL, _PRIVILEGE = 4, 3


def own_tables(registers: Mapping[str, int], word: int, local_base: int) -> tuple[bytes, bytes] | None:
    """The global table, and the local one that is to lie at linear ``local_base``.

    None where hidden parts are not known, contradict each other, or do not fit.
    """
    whole, local = bytearray(TABLE_SIZE), bytearray(LOCAL_TABLE_SIZE)
    whole[LOCAL_TABLE_SELECTOR:] = _descriptor(local_base, LOCAL_TABLE_SIZE - 1, _LDT, wide=True)
    for name in (*_SEGMENTS, "tr", "ldtr"):
        selector = registers[name]
        if not selector & ~_PRIVILEGE:
            continue
        if f"{name}.flags" not in registers:
            return None
        base, limit, flags = (registers[f"{name}.{part}"] for part in ("base", "limit", "flags"))
        if word == 8 and name in _SEGMENTS:
            base = 0  # of FS and GS from their MSRs, of the others not used
        if name == "tr":
            flags &= ~_BUSY  # LTR takes an available one and makes it busy
        content = _descriptor(base, limit, flags, wide=word == 8 and name in ("tr", "ldtr"))
        table, end = (local, LOCAL_TABLE_SIZE) if selector & _LOCAL else (whole, LOCAL_TABLE_SELECTOR)
        at = selector & ~(_LOCAL | _PRIVILEGE)
        if at + len(content) > end or (any(table[at : at + len(content)]) and not table.startswith(content, at)):
            return None
        table[at : at + len(content)] = content
    return bytes(whole), bytes(local)


def _descriptor(base: int, limit: int, flags: int, *, wide: bool) -> bytes:
    flags &= _ATTRIBUTES
    if flags & _GRANULARITY:
        limit >>= 12
    high = flags | base & 0xFF000000 | base >> 16 & 0xFF | limit & 0xF0000
    low = (base & 0xFFFF) << 16 | limit & 0xFFFF
    return (high << 32 | low).to_bytes(8, "little") + (base >> 32).to_bytes(8, "little") * wide
