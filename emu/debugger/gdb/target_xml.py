"""The two documents that gdb reads when it attaches: which registers there are, and which addresses.

One description serves the whole session, so that gdb follows the jump through every mode.  Formats: the gdb manual,
"Target Descriptions" and "Memory Map Format".
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from emu.debugger.gdb.registers import FEATURES, Feature, Register
from emu.units import GIB
from emu.x86.bits import Cr0, Cr4, Efer, Eflags

_HEAD: Final = '<?xml version="1.0"?>\n'
_MXCSR: Final = ("IE", "DE", "ZE", "OE", "UE", "PE", "DAZ", "IM", "DM", "ZM", "OM", "UM", "PM")


def _bit_names(members: Iterable[tuple[str, int]]) -> dict[str, int]:
    """Single-bit members by name, as bit numbers."""
    return {name: value.bit_length() - 1 for name, value in members if value.bit_count() == 1}


def _flags(name: str, size: int, bits: Mapping[str, int]) -> str:
    fields = "".join(f'<field name="{field}" start="{bit}" end="{bit}"/>' for field, bit in bits.items())
    return f'<flags id="{name}" size="{size}">{fields}</flags>'


def _vector() -> str:
    shapes = {
        "v4f": ("ieee_single", 4, "v4_float"),
        "v2d": ("ieee_double", 2, "v2_double"),
        "v16i8": ("int8", 16, "v16_int8"),
        "v8i16": ("int16", 8, "v8_int16"),
        "v4i32": ("int32", 4, "v4_int32"),
        "v2i64": ("int64", 2, "v2_int64"),
    }
    vectors = "".join(
        f'<vector id="{name}" type="{element}" count="{count}"/>' for name, (element, count, _) in shapes.items()
    )
    fields = "".join(f'<field name="{field}" type="{name}"/>' for name, (_, _, field) in shapes.items())
    return f'{vectors}<union id="vec128">{fields}<field name="uint128" type="uint128"/></union>'


def _types(feature: Feature) -> str:
    match feature.name.rpartition(".")[2]:
        case "core":
            return _flags("eflags", 4, _bit_names((flag.name or "", flag.value) for flag in Eflags))
        case "sse":
            names = {name: number for number, name in enumerate(_MXCSR)} | {"FZ": 15}
            return _vector() + _flags("i386_mxcsr", 4, names)
        case "system":
            kinds = {"cr0": Cr0, "cr4": Cr4, "efer": Efer}
            return "".join(
                _flags(name, 8, _bit_names((bit.name or "", bit.value) for bit in kind)) for name, kind in kinds.items()
            )
        case _:
            return ""


def _register(register: Register) -> str:
    group = f' group="{register.group}"' if register.group else ""
    return f'<reg name="{register.name}" bitsize="{register.bits}" type="{register.type}"{group}/>'


def target_xml() -> str:
    """``target.xml``: the architecture and every register in the order of its number."""
    parts = [f'{_HEAD}<!DOCTYPE target SYSTEM "gdb-target.dtd">\n<target version="1.0">']
    parts += ["<architecture>i386:x86-64</architecture>", "<osabi>none</osabi>"]
    for feature in FEATURES:
        registers = "\n".join(map(_register, feature.registers))
        parts.append(f'<feature name="{feature.name}">\n{_types(feature)}\n{registers}\n</feature>')
    return "\n".join(parts) + "\n</target>\n"


def linear_ranges(bits: int, levels: int, end_of_ram: int) -> list[tuple[int, int]]:
    """Start and size of every range of linear addresses that can ever be mapped (or be a physical one).

    gdb refuses what the map leaves out, without asking; page tables change, so only what cannot be is left out: the
    hole between the canonical halves, and what lies above 4 GiB on i386.
    """
    if bits == 32:
        return [(0, max(4 * GIB, end_of_ram))]
    half = 1 << (56 if levels == 5 else 47)
    return [(0, half), ((1 << 64) - half, half)]


def memory_map_xml(ranges: Sequence[tuple[int, int]]) -> str:
    """The memory map: every range (start, size in bytes) is RAM to gdb."""
    memory = "".join(f'<memory type="ram" start="{start:#x}" length="{size:#x}"/>\n' for start, size in ranges)
    doctype = '<!DOCTYPE memory-map PUBLIC "+//IDN gnu.org//DTD GDB Memory Map V1.0//EN" "gdb-memory-map.dtd">'
    return f"{_HEAD}{doctype}\n<memory-map>\n{memory}</memory-map>\n"
