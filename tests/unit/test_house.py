"""The rules of the house that a program can check."""

from __future__ import annotations

import ast
import io
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
MODULES = sorted((ROOT / "emu").rglob("*.py"))

# Lowest first.  A module may import from its own room and from rooms below it.
LAYERS = (
    {"errors", "units", "resources", "filekind", "workers"},
    {"x86"},
    {"assembler"},
    {"kexec", "kernelfile"},
    {"hibernate"},
    {"machine"},
    {"journey"},
    {"report"},
    {"boot", "debugger", "fuzz", "oracle", "suite", "trials"},
    {"bench", "catalogue", "mutation"},
    {"cli_boot", "cli_fuzz", "cli_info", "cli_kernel"},
    {"cli", "__main__"},
)
RANK = {room: rank for rank, rooms in enumerate(LAYERS) for room in rooms}

# What may be imported where: the first words of module names, and the only places for them.
FENCED = {
    "unicorn": "emu/machine/binding.py",
    "keystone": "emu/assembler/",
    "capstone": "emu/assembler/",
}
MOST_CODE_LINES = 400

TEXT_SUFFIXES = {".py", ".S", ".inc", ".toml", ".md", ".yml", ".sh", ""}
TEXT_FOLDERS = ("emu", "asm", "kernels", "tests", "docs", ".ci")
# Written so that this file does not match itself.
SOMEBODYS_PATH = re.compile(r"(?<![\w.$}])/(?:work|root|farm|home|tmp|Users)/\w")
UNFINISHED = re.compile(r"\b(?:T[O]DO|FI[X]ME|X[X]X|HA[C]K|for [n]ow|not implemented [y]et)\b")
PACKAGE_HOST = re.compile(r"https?://[\w.-]*(?:py[p]i|pytho[n]hosted|arti[f]actory)", re.IGNORECASE)


def name_of(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


def room_of(module: str) -> str:
    """``emu.machine.devices.pic`` lives in ``machine``."""
    return module.split(".")[1]


def imports_of(path: Path) -> Iterator[tuple[int, str]]:
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield node.lineno, alias.name
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{name_of(path)}:{node.lineno}: imports are absolute here"
            assert node.module is not None
            if node.module == "emu":
                for alias in node.names:
                    yield node.lineno, f"emu.{alias.name}"
            else:
                yield node.lineno, node.module


def upward_imports(path: Path, module: str) -> list[str]:
    """Every import of ``path`` that goes sideways or upwards, as file:line: what."""
    own = room_of(module)
    found = []
    for line, imported in imports_of(path):
        if imported.startswith("emu.") and room_of(imported) != own:
            if RANK[room_of(imported)] == RANK[own] == 0:
                continue
            if RANK[room_of(imported)] >= RANK[own]:
                found.append(f"{name_of(path)}:{line}: {own} imports {imported}")
    return found


def code_lines(path: Path) -> int:
    """Lines that hold code: no blank lines, no comments, no docstrings."""
    source = path.read_text()
    prose: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef) and node.body:
            first = node.body[0]
            if isinstance(first, ast.Expr) and isinstance(first.value, ast.Constant) and first.end_lineno:
                prose.update(range(first.lineno, first.end_lineno + 1))
    skipped = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}
    held: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type not in skipped:
            held.update(range(token.start[0], token.end[0] + 1))
    return len(held - prose)


def project_texts() -> list[Path]:
    files = (path for path in ROOT.iterdir() if path.is_file() and path.name != ".git")  # a worktree has a .git file
    paths = [path for path in files if path.suffix in TEXT_SUFFIXES]
    for folder in TEXT_FOLDERS:
        paths += [path for path in (ROOT / folder).rglob("*") if path.is_file() and path.suffix in TEXT_SUFFIXES]
    return sorted(paths)


def test_every_room_has_its_layer() -> None:
    rooms = {path.relative_to(ROOT / "emu").parts[0].removesuffix(".py") for path in MODULES} - {"__init__"}
    assert rooms <= RANK.keys()


@pytest.mark.parametrize("path", MODULES, ids=name_of)
def test_imports_go_downwards(path: Path) -> None:
    module = name_of(path).removesuffix(".py").replace("/", ".")
    if module == "emu.__init__":
        assert not list(imports_of(path)), "the package itself imports nothing"
    else:
        assert upward_imports(path, module) == []


def test_an_upward_import_is_noticed() -> None:
    path = ROOT / "emu/machine/devices/busmaster.py"
    assert upward_imports(path, "emu.machine.devices.busmaster") == []
    assert upward_imports(path, "emu.units") != []


def test_the_engines_are_imported_where_they_belong() -> None:
    strays = [
        f"{name_of(path)}:{line}: {module}"
        for path in MODULES
        for line, module in imports_of(path)
        if (fence := FENCED.get(module.split(".")[0])) and not name_of(path).startswith(fence)
    ]
    assert strays == []


def test_a_module_has_one_topic() -> None:
    too_long = {name_of(path): lines for path in MODULES if (lines := code_lines(path)) > MOST_CODE_LINES}
    assert too_long == {}


def test_code_lines_leave_out_prose(tmp_path: Path) -> None:
    path = tmp_path / "sample.py"
    path.write_text(
        '"""Prose\nover two lines."""\n\n# a comment\nNUMBERS = (\n    1,\n)\n\n\ndef f():\n    """Say."""\n'
    )
    assert code_lines(path) == 4


@pytest.mark.parametrize("pattern", [SOMEBODYS_PATH, UNFINISHED, PACKAGE_HOST], ids=["path", "unfinished", "host"])
def test_no_text_says_what_it_should_not(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name_of(path)}:{number}: {line.strip()[:80]}"
        for path in project_texts()
        for number, line in enumerate(path.read_text(errors="replace").splitlines(), 1)
        if pattern.search(line)
    ]
    assert found == []
