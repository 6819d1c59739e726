"""The documents that gdb reads: well-formed, complete, and true of the linear address space."""

from __future__ import annotations

from xml.etree import ElementTree as ET

from emu.debugger.gdb.registers import FEATURES, REGISTERS
from emu.debugger.gdb.target_xml import linear_ranges, memory_map_xml, target_xml
from emu.units import GIB

BUILT_IN = {
    "int", "int8", "int16", "int32", "int64", "uint32", "uint64", "uint128", "code_ptr", "data_ptr", "ieee_single",
    "ieee_double", "i387_ext",
}  # fmt: skip


def parsed(document: str) -> ET.Element:
    return ET.fromstring(document)  # noqa: S314 - our own


def test_the_target_is_an_x86_64_with_every_register_in_order() -> None:
    root = parsed(target_xml())
    assert root.findtext("architecture") == "i386:x86-64"
    assert [feature.get("name") for feature in root.iter("feature")] == [feature.name for feature in FEATURES]
    found = [(reg.get("name"), reg.get("bitsize")) for reg in root.iter("reg")]
    assert found == [(register.name, str(register.bits)) for register in REGISTERS]


def test_every_type_is_gdbs_own_or_defined_before_it_is_used() -> None:
    for feature in parsed(target_xml()).iter("feature"):
        known = set(BUILT_IN)
        for element in feature:
            assert element.tag in ("reg", "flags", "vector", "union")
            used = [element, *element] if element.tag != "flags" else []
            assert {one.get("type") for one in used if one.get("type")} <= known
            known.add(element.get("id") or "")


def test_the_bits_of_control_registers_have_their_names() -> None:
    root = parsed(target_xml())
    bits = {
        flags.get("id"): {field.get("name"): field.get("start") for field in flags.iter("field")}
        for flags in root.iter("flags")
    }
    assert bits["cr0"]["PG"] == "31"
    assert bits["cr0"]["WP"] == "16"
    assert bits["cr4"]["PAE"] == "5"
    assert bits["efer"]["LMA"] == "10"
    assert bits["eflags"]["IF"] == "9"


def test_the_memory_map_leaves_out_what_can_never_be_mapped() -> None:
    assert linear_ranges(32, 2, 64 << 20) == [(0, 4 * GIB)]
    assert linear_ranges(32, 3, 6 * GIB) == [(0, 6 * GIB)]
    assert linear_ranges(64, 4, 64 << 20) == [(0, 1 << 47), (0xFFFF800000000000, 1 << 47)]
    assert linear_ranges(64, 5, 64 << 20) == [(0, 1 << 56), (0xFF00000000000000, 1 << 56)]


def test_the_memory_map_is_well_formed() -> None:
    root = parsed(memory_map_xml([(0, 0x1000), (0x8000, 0x10)]))
    assert [(one.get("type"), one.get("start"), one.get("length")) for one in root] == [
        ("ram", "0x0", "0x1000"),
        ("ram", "0x8000", "0x10"),
    ]
