"""Descriptors and gates survive their byte form."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from emu.x86.segments import FLAGS_MASK, PRESENT, Descriptor, Gate, SystemType

GATES = st.builds(
    Gate,
    type=st.sampled_from([SystemType.INTERRUPT_GATE, SystemType.TRAP_GATE]),
    selector=st.integers(0, 0xFFFF),
    offset=st.integers(0, 2**64 - 1),
    dpl=st.integers(0, 3),
    present=st.booleans(),
    ist=st.integers(0, 7),
)


@given(base=st.integers(0, 2**32 - 1), raw_limit=st.integers(0, 2**20 - 1), flags=st.integers(0, 2**32 - 1))
def test_descriptor_round_trip(base: int, raw_limit: int, flags: int) -> None:
    made = Descriptor(base, raw_limit, flags & FLAGS_MASK)
    assert Descriptor.decode(made.encode()) == made


@given(raw=st.binary(min_size=8, max_size=8))
def test_every_descriptor_keeps_its_bytes(raw: bytes) -> None:
    assert Descriptor.decode(raw).encode() == raw


@given(base=st.integers(0, 2**64 - 1))
def test_wide_descriptor_round_trip(base: int) -> None:
    made = Descriptor(base, 0x67, PRESENT | SystemType.TSS_BUSY << 8)
    assert Descriptor.decode(made.encode_wide()) == made


@given(made=GATES)
def test_wide_gate_round_trip(made: Gate) -> None:
    assert Gate.decode(made.encode_wide()) == made
