"""Sources and kernels are found in a checkout and in an installed wheel."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from emu import resources
from emu.errors import KjumpError

ROOT = Path(__file__).resolve().parents[2]
ASK = "from emu.resources import *; print(asm_dir(), kernels_dir(), is_checkout(), sep='\\n')"


def test_a_checkout_uses_its_own_folders() -> None:
    assert (resources.asm_dir(), resources.kernels_dir()) == (ROOT / "asm", ROOT / "kernels")
    assert resources.is_checkout()


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """The package as a wheel lays it out, with the folders it carries."""
    package = tmp_path / "emu"
    package.mkdir()
    for name in ("__init__.py", "resources.py", "errors.py"):
        shutil.copy(ROOT / "emu" / name, package)
    for name in ("asm", "kernels"):
        (package / "_data" / name).mkdir(parents=True)
    return package


def test_an_installed_package_uses_what_it_carries(installed: Path) -> None:
    # Isolated from this checkout: -P and an empty environment keep it off the path.
    code = f"import sys; sys.path.insert(0, {str(installed.parent)!r}); {ASK}"
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True, env={})
    assert done.stdout.split() == [str(installed / "_data/asm"), str(installed / "_data/kernels"), "False"]


def test_a_package_without_its_data_says_so(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(resources, "_PACKAGE", tmp_path / "emu")
    monkeypatch.setattr(resources, "_CHECKOUT", tmp_path)
    with pytest.raises(KjumpError, match=r"this installation has no kernels/ \(install kjump again\)"):
        resources.kernels_dir()
