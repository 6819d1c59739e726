"""Where the assembly sources and the toy kernels are: in a checkout, or inside the installed package."""

from __future__ import annotations

from pathlib import Path

from emu.errors import KjumpError

_PACKAGE = Path(__file__).resolve().parent
_CHECKOUT = _PACKAGE.parent


def _folder(name: str) -> Path:
    """The folder ``name`` of a checkout when this package lies in one, else the copy that the wheel carries.

    Raises KjumpError when there is neither.
    """
    in_checkout = _CHECKOUT / name
    if (_CHECKOUT / "pyproject.toml").is_file() and in_checkout.is_dir():
        return in_checkout
    in_package = _PACKAGE / "_data" / name
    if in_package.is_dir():
        return in_package
    raise KjumpError(f"this installation has no {name}/", where=str(_PACKAGE), hint="install kjump again")


def asm_dir() -> Path:
    """The stubs and their include files."""
    return _folder("asm")


def kernels_dir() -> Path:
    """The toy kernels and the journeys."""
    return _folder("kernels")


def is_checkout() -> bool:
    """Whether this is a checkout, with a test suite beside the package."""
    return (_CHECKOUT / "pyproject.toml").is_file() and (_CHECKOUT / "tests").is_dir()
