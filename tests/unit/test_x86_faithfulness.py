"""docs/FAITHFULNESS.md names only tests that exist."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "FAITHFULNESS.md"
NAMED = re.compile(r"`((?:Test\w+::)?test_\w+)`")


def names_in(path: Path) -> Iterator[str]:
    """Every test of a file as ``test_x`` or ``TestX::test_x``."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.FunctionDef):
            yield node.name
        elif isinstance(node, ast.ClassDef):
            for inner in node.body:
                if isinstance(inner, ast.FunctionDef):
                    yield f"{node.name}::{inner.name}"


def test_every_test_that_the_page_names_exists() -> None:
    named = set(NAMED.findall(PAGE.read_text()))
    existing = {name for path in (ROOT / "tests").rglob("test_*.py") for name in names_in(path)}
    assert len(named) > 80
    assert named - existing == set()


def test_every_rule_of_the_pure_modules_is_on_the_page() -> None:
    named = set(NAMED.findall(PAGE.read_text()))
    control = names_in(ROOT / "tests" / "unit" / "test_x86_control.py")
    rules = {name for name in control if name.startswith(("TestCr", "TestMsr"))}
    assert rules - named == {"TestCr4::test_bits_that_it_has"}
