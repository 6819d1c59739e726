"""An input of a target: named fields, as a value and as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from emu.errors import FuzzError

Value = int | str | bytes | tuple[int, ...]
_BYTES = "hex:"


def value_json(value: Value) -> Any:  # noqa: ANN401 - what json takes
    """A value as JSON: numbers as ``0x...``, bytes as ``hex:...``, a choice as its own word."""
    if isinstance(value, bytes):
        return _BYTES + value.hex()
    if isinstance(value, tuple):
        return [hex(word) for word in value]
    return hex(value) if isinstance(value, int) else value


def value_from(data: Any) -> Value:  # noqa: ANN401 - what json gives
    """The value behind :func:`value_json`; raises FuzzError."""
    try:
        if isinstance(data, list):
            return tuple(int(word, 16) for word in data)
        if isinstance(data, str) and data.startswith(_BYTES):
            return bytes.fromhex(data.removeprefix(_BYTES))
        if isinstance(data, str) and data.startswith(("0x", "-0x")):
            return int(data, 16)
    except (TypeError, ValueError) as error:
        raise FuzzError(f"{data!r} is no value of a case") from error
    if isinstance(data, str):
        return data
    raise FuzzError(f"{data!r} is no value of a case")


@dataclass(frozen=True, slots=True)
class Case:
    """One input; ``fields`` are (name, value) in the order of the target's specification."""

    target: str
    fields: tuple[tuple[str, Value], ...]

    @classmethod
    def of(cls, target: str, values: Mapping[str, Value]) -> Case:
        """A case from values by name."""
        return cls(target, tuple(values.items()))

    def values(self) -> dict[str, Value]:
        """The values by name."""
        return dict(self.fields)

    def number(self, name: str) -> int:
        """The value of a field that holds a number."""
        value = dict(self.fields)[name]
        if not isinstance(value, int):
            raise FuzzError(f"field {name} of a {self.target} case is no number: {value!r}")
        return value

    def word(self, name: str) -> str:
        """The value of a field that holds a choice."""
        value = dict(self.fields)[name]
        if not isinstance(value, str):
            raise FuzzError(f"field {name} of a {self.target} case is no word: {value!r}")
        return value

    def blob(self, name: str) -> bytes:
        """The value of a field that holds bytes."""
        value = dict(self.fields)[name]
        if not isinstance(value, bytes):
            raise FuzzError(f"field {name} of a {self.target} case holds no bytes: {value!r}")
        return value

    def words(self, name: str) -> tuple[int, ...]:
        """The value of a field that holds a sequence of numbers."""
        value = dict(self.fields)[name]
        if not isinstance(value, tuple):
            raise FuzzError(f"field {name} of a {self.target} case is no sequence: {value!r}")
        return value

    def with_value(self, name: str, value: Value) -> Case:
        """The case with one field changed."""
        return replace(self, fields=tuple((n, value if n == name else v) for n, v in self.fields))

    def to_json(self) -> dict[str, Any]:
        """Plain data."""
        return {"target": self.target, "fields": {name: value_json(value) for name, value in self.fields}}

    @classmethod
    def from_json(cls, data: Mapping[str, Any]) -> Case:
        """The case behind :meth:`to_json`; raises FuzzError."""
        target, fields = data.get("target"), data.get("fields")
        if not isinstance(target, str) or not isinstance(fields, dict):
            raise FuzzError("is no case: it has no target or no fields")
        return cls(target, tuple((str(name), value_from(value)) for name, value in fields.items()))

    def __str__(self) -> str:
        return " ".join(f"{name}={_short(value)}" for name, value in self.fields)


def _short(value: Value) -> str:
    if isinstance(value, bytes):
        return f"{len(value)} bytes" if len(value) > 16 else f"{_BYTES}{value.hex()}"
    if isinstance(value, tuple):
        return f"{len(value)} words" if len(value) > 4 else "[" + " ".join(map(hex, value)) + "]"
    return hex(value) if isinstance(value, int) else value
