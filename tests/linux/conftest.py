"""What the tests of booting Linux share: Debian's packages, and kernels built from its source package.

Everything lies in KJUMP_LINUX_DIR, if that is set, and is then made only once; else in a folder that goes away.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

TOOLS = ("gcc", "make", "flex", "bison", "bc", "xz", "apt-get")
COMMON = """
CONFIG_PRINTK=y
CONFIG_TTY=y
CONFIG_SERIAL_8250=y
CONFIG_SERIAL_8250_CONSOLE=y
CONFIG_BINFMT_ELF=y
CONFIG_BLK_DEV_INITRD=y
CONFIG_BLOCK=y
CONFIG_SWAP=y
CONFIG_PM=y
CONFIG_HIBERNATION=y
CONFIG_KEXEC=y
CONFIG_KEXEC_JUMP=y
CONFIG_KALLSYMS=y
CONFIG_KALLSYMS_ALL=y
CONFIG_MULTIUSER=y
CONFIG_RELOCATABLE=y
CONFIG_HZ_250=y
# CONFIG_SPECULATION_MITIGATIONS is not set
# CONFIG_RANDOMIZE_BASE is not set
"""
KINDS = {
    "x86_64": ("x86_64", "CONFIG_64BIT=y\n"),
    "i386": ("i386", "# CONFIG_64BIT is not set\nCONFIG_M686=y\nCONFIG_NOHIGHMEM=y\n"),
    "i386-pae": ("i386", "# CONFIG_64BIT is not set\nCONFIG_M686=y\nCONFIG_HIGHMEM64G=y\n"),
}


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    kept = os.environ.get("KJUMP_LINUX_DIR")
    if kept:
        Path(kept).mkdir(parents=True, exist_ok=True)
        yield Path(kept)
        return
    made = tmp_path_factory.mktemp("linux")
    yield made
    shutil.rmtree(made)


def command(*words: str, cwd: Path | None = None) -> str:
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True).stdout


def unpacked(folder: Path, package: str) -> Path:
    """The files of a Debian package."""
    target = folder / package
    if not target.is_dir():
        subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
        command("apt-get", "download", package, cwd=folder)
        deb = next(folder.glob(f"{package}_*.deb"))
        command("dpkg-deb", "-x", str(deb), str(target))
        deb.unlink()
    return target


@dataclass(frozen=True)
class Built:
    """A kernel that was built here, and where its descriptor table is linked."""

    image: Path
    gdt: int


def built(folder: Path, kind: str) -> Built:
    """A small kernel with KEXEC_JUMP; the first one takes minutes."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.fail(f"make linux needs {', '.join(missing)}")
    arch, more = KINDS[kind]
    output = folder / f"build-{kind}"
    image = output / "arch/x86/boot/bzImage"
    if not image.is_file():
        archive = next((unpacked(folder, "linux-source-6.1") / "usr/src").glob("linux-source-*.tar.xz"))
        source = folder / archive.name.removesuffix(".tar.xz")
        if not source.is_dir():
            command("tar", "xf", str(archive), "-C", str(folder))
        output.mkdir(exist_ok=True)
        make = ["nice", "-n", "19", "make", "-s", "-C", str(source), f"O={output}", f"ARCH={arch}"]
        command(*make, "tinyconfig")
        with (output / ".config").open("a") as config:
            config.write(COMMON + more)
        command(*make, "olddefconfig")
        assert "CONFIG_KEXEC_JUMP=y" in (output / ".config").read_text()
        command(*make, "-j2", "bzImage")
    found = re.search(r"^([0-9a-f]+) \w gdt_page$", (output / "System.map").read_text(), re.MULTILINE)
    assert found is not None
    return Built(image, int(found.group(1), 16))


def boot(image: Path, initrd: bytes, append: str, *words: str, typed: str = "") -> tuple[int, dict[str, Any]]:
    """``kjump boot --json`` in a process of its own."""
    ramdisk = image.parent / f"initrd-{os.getpid()}.img"
    ramdisk.write_bytes(initrd)
    line = [sys.executable, "-m", "emu.cli", "boot", "--json", str(image), "--initrd", str(ramdisk), "--append", append]
    run = subprocess.run([*line, *words], input=typed, capture_output=True, text=True, check=False, timeout=1800)
    ramdisk.unlink()
    assert run.stdout, run.stderr
    return run.returncode, json.loads(run.stdout)
