"""What the tests of booting Linux share: Debian's packages, and kernels built from its source package.

Everything lies in KJUMP_LINUX_DIR, else in kjump's folder below the user's cache folder, and is made only once.  A
build that was interrupted goes on where it was.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
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
CONFIG_PROC_FS=y
CONFIG_DEVMEM=y
CONFIG_KALLSYMS=y
CONFIG_KALLSYMS_ALL=y
CONFIG_MULTIUSER=y
CONFIG_RELOCATABLE=y
CONFIG_HZ_250=y
# CONFIG_SPECULATION_MITIGATIONS is not set
# CONFIG_RANDOMIZE_BASE is not set
# CONFIG_STRICT_DEVMEM is not set
"""
KINDS = {
    "x86_64": ("x86_64", "CONFIG_64BIT=y\n"),
    "i386": ("i386", "# CONFIG_64BIT is not set\nCONFIG_M686=y\nCONFIG_NOHIGHMEM=y\n"),
    "i386-pae": ("i386", "# CONFIG_64BIT is not set\nCONFIG_M686=y\nCONFIG_HIGHMEM64G=y\n"),
}


@pytest.fixture(scope="session")
def folder() -> Path:
    kept = os.environ.get("KJUMP_LINUX_DIR")
    cache = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "kjump" / "linux"
    found = Path(kept) if kept else cache
    found.mkdir(parents=True, exist_ok=True)
    return found


Progress = Callable[[str], None]


@pytest.fixture(scope="session")
def progress(request: pytest.FixtureRequest) -> Progress:
    """Tells the person at the terminal what takes so long, whatever pytest captures."""
    manager = request.config.pluginmanager.getplugin("capturemanager")
    began = time.monotonic()

    def say(text: str) -> None:
        with manager.global_and_fixture_disabled():
            print(f"\n[{time.monotonic() - began:5.0f} s] {text}", end="", file=sys.stderr, flush=True)

    return say


def command(*words: str, cwd: Path | None = None) -> str:
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True).stdout


def unpacked(folder: Path, package: str) -> Path:
    """The files of a Debian package."""
    target = folder / package
    if not target.is_dir():
        subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
        command("apt-get", "download", package, cwd=folder)
        deb = next(folder.glob(f"{package}_*.deb"))
        half = folder / f"{package}.half"
        shutil.rmtree(half, ignore_errors=True)
        command("dpkg-deb", "-x", str(deb), str(half))
        half.rename(target)
        deb.unlink()
    return target


def debian_kernel(folder: Path) -> Path:
    """The vmlinuz of Debian's cloud kernel."""
    depends = command("apt-cache", "depends", "linux-image-cloud-amd64")
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    assert match is not None, depends
    return next((unpacked(folder, match.group(1)) / "boot").glob("vmlinuz-*"))


@dataclass(frozen=True)
class Built:
    """A kernel that was built here."""

    image: Path
    symbols: dict[str, int]

    @property
    def map(self) -> Path:
        """Its System.map."""
        return self.image.parents[3] / "System.map"


def source_tree(folder: Path, progress: Progress) -> Path:
    """The kernel's source, from the distribution's package."""
    tree = folder / "linux-source"
    if not tree.is_dir():
        progress("fetching and unpacking linux-source-6.1 (133 MB)")
        archive = next((unpacked(folder, "linux-source-6.1") / "usr/src").glob("linux-source-*.tar.xz"))
        half = folder / "linux-source.half"
        shutil.rmtree(half, ignore_errors=True)
        half.mkdir()
        command("tar", "xf", str(archive), "--strip-components=1", "-C", str(half))
        half.rename(tree)
    return tree


def configure(make: Sequence[str], output: Path, more: str) -> None:
    """The smallest configuration and what is wanted on top; done only once."""
    if (output / ".config.kjump").is_file():
        return
    command(*make, "-s", "tinyconfig")
    with (output / ".config").open("a") as config:
        config.write(COMMON + more)
    command(*make, "-s", "olddefconfig")
    said = (output / ".config").read_text().splitlines()
    missing = [line for line in (COMMON + more).splitlines() if line.endswith("=y") and line not in said]
    assert not missing, f"this kernel has no {missing}"
    (output / ".config.kjump").touch()


def built(folder: Path, kind: str, progress: Progress) -> Built:
    """A small kernel with KEXEC_JUMP; the first time it takes minutes."""
    missing = [tool for tool in TOOLS if shutil.which(tool) is None]
    if missing:
        pytest.fail(f"make linux needs {', '.join(missing)}")
    arch, more = KINDS[kind]
    output = folder / f"build-{kind}-{hashlib.sha256((COMMON + more).encode()).hexdigest()[:8]}"
    image = output / "arch/x86/boot/bzImage"
    if not image.is_file():
        source = source_tree(folder, progress)
        output.mkdir(exist_ok=True)
        make = ["nice", "-n", "10", "make", "-C", str(source), f"O={output}", f"ARCH={arch}"]
        configure(make, output, more)
        _compile(make, kind, progress)
    lines = re.findall(r"^([0-9a-f]+) \w (\S+)$", (output / "System.map").read_text(), re.MULTILINE)
    return Built(image, {name: int(at, 16) for at, name in lines})


def _compile(make: Sequence[str], kind: str, progress: Progress) -> None:
    words = [*make, f"-j{os.cpu_count() or 1}", "bzImage"]
    said: list[str] = []
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True) as process:
        for line in process.stdout or ():
            said.append(line)
            if len(said) % 100 == 1:
                progress(f"building the {kind} kernel: {len(said):,} of some 1,000 steps")
    assert process.returncode == 0, "".join(said[-30:])


def boot(image: Path, initrd: bytes, append: str, *words: str, typed: str = "") -> tuple[int, dict[str, Any]]:
    """``kjump boot --json`` in a process of its own."""
    ramdisk = image.parent / f"initrd-{os.getpid()}.img"
    ramdisk.write_bytes(initrd)
    line = [sys.executable, "-m", "emu.cli", "boot", "--json", str(image), "--initrd", str(ramdisk), "--append", append]
    run = subprocess.run([*line, *words], input=typed, capture_output=True, text=True, check=False, timeout=1800)
    ramdisk.unlink()
    assert run.stdout, run.stderr
    return run.returncode, json.loads(run.stdout)
