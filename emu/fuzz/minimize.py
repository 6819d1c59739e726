"""A case made smaller, field by field and byte by byte, while its key stays."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from emu.fuzz.case import Case
from emu.fuzz.fields import Field

MOST_RUNS = 20_000


def minimize(
    spec: Sequence[Field], case: Case, key: str, key_of: Callable[[Case], str], *, most: int = MOST_RUNS
) -> Case:
    """The smallest case that this finds with ``key_of(case) == key``, in at most ``most`` runs."""
    left = most
    again = True
    while again and left > 0:
        again = False
        for field in spec:
            smaller, used = _one_field(field, case, key, key_of, left)
            left -= used
            again = again or smaller != case
            case = smaller
    return case


def _one_field(field: Field, case: Case, key: str, key_of: Callable[[Case], str], most: int) -> tuple[Case, int]:
    """``case`` with one field as small as it gets, and how many runs that took."""
    used = 0
    better = True
    while better and used < most:
        better = False
        for value in field.smaller(case.values()[field.name]):
            candidate = case.with_value(field.name, value)
            if field.weight(value) > field.weight(case.values()[field.name]):
                continue
            used += 1
            if key_of(candidate) == key:
                case, better = candidate, True
                break
            if used >= most:
                break
    return case, used
