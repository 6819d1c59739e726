"""The relocate_kernel of Debian's kernels, fetched now and kept nowhere: found, run unmodified, its known faults shown.

Run by ``make kernels`` on Debian 12 as root: 500 MB are downloaded into a temporary folder.  Kernels with the 6.14 form
are those that Debian offers for the release after, asked for with an apt configuration of their own, so that the
machine's own lists stay as they are.
"""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import tarfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from emu.cli import main
from emu.cli_kernel import kernel_scene, run_document
from emu.debugger.repl import Repl
from emu.debugger.session import Session
from emu.errors import EXIT_FINDINGS
from emu.journey.journey import Journey
from emu.journey.linux_call import file_sha256
from emu.journey.list_runs import ListBench
from emu.journey.list_shapes import SHAPES
from emu.journey.result import RunResult
from emu.kernelfile import KernelStub, StubForm, find_stub, kernel_info
from emu.kernelfile.bzimage import payload, read_setup
from emu.kernelfile.decompress import decompress
from emu.kernelfile.forms import SIGNATURES
from emu.kernelfile.stub_of import open_kernel
from tests.linux.initramfs import character, cpio, directory, program
from tests.linux.programs import jumping_init

pytestmark = [
    pytest.mark.kernels,
    pytest.mark.slow,
    pytest.mark.skipif(
        os.environ.get("KJUMP_KERNELS") != "1", reason="downloads kernels with apt as root: run `make kernels`"
    ),
]

CLASSIC = ("amd64", "cloud-amd64", "686-pae", "6.12")
NEWER = ("6.16", "6.17", "6.18", "7")
NAMES = (*CLASSIC, *NEWER)
LATER = re.compile(r"linux-image-6\.12\.[\w.+]+-(?:cloud-|rt-)?amd64")
NEWER_SUITE = "trixie-backports"
KEYS = "/usr/share/keyrings/debian-archive-keyring.gpg"
PAGES = 671
SEEN = {
    "amd64": (StubForm.X86_64, 490, (0x73, 0x134, 0x16A)),
    "cloud-amd64": (StubForm.X86_64, 490, (0x73, 0x134, 0x16A)),
    "686-pae": (StubForm.I386, 462, (0x7E, 0x12C, 0x156)),
}
"""Form, bytes, identity_mapped, virtual_mapped and swap_pages of the 6.1 kernels."""


def command(*words: str, cwd: Path | None = None, apt: Path | None = None) -> str:
    environment = os.environ | ({"APT_CONFIG": str(apt)} if apt is not None else {})
    return subprocess.run(words, cwd=cwd, check=True, capture_output=True, text=True, env=environment).stdout


def latest(names: list[str]) -> str:
    return max(names, key=lambda one: [int(part) for part in re.findall(r"\d+", one)])


def package_of(name: str) -> str:
    """The package that the metapackage of ``name`` leads to; the latest that there is of 6.12."""
    if name == "6.12":
        found = [one for one in command("apt-cache", "pkgnames", "linux-image-6.12").split() if LATER.fullmatch(one)]
        if not found:
            pytest.skip("this distribution has no 6.12 kernel")
        return latest(found)
    architecture = ":i386" if name == "686-pae" else ""
    depends = command("apt-cache", "depends", f"linux-image-{name}{architecture}")
    match = re.search(r"Depends: (linux-image-\S+)", depends)
    assert match is not None, depends
    return match.group(1)


def newer_package(name: str, apt: Path) -> str:
    """The package that holds the latest cloud kernel of ``name``; from 7.0 on it is called otherwise."""
    kind = "binary" if name == "7" else "image"
    names = command("apt-cache", "pkgnames", f"linux-{kind}-{name}.", apt=apt).split()
    found = [
        one for one in names if one.endswith("+deb13-cloud-amd64") and command("apt-cache", "madison", one, apt=apt)
    ]
    if not found:
        pytest.skip(f"{NEWER_SUITE} has no {name} kernel")
    return latest(found)


def own_apt(folder: Path) -> Path:
    """The configuration of an apt that knows the newer suite only, from the mirror that this machine uses."""
    told = command("apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Codename: bookworm")
    mirror = told.split()[0]
    for name in ("lists/partial", "cache/archives/partial", "parts"):
        (folder / name).mkdir(parents=True)
    (folder / "sources.list").write_text(f"deb [arch=amd64 signed-by={KEYS}] {mirror} {NEWER_SUITE} main\n")
    config = folder / "apt.conf"
    config.write_text(
        f'Dir::State::lists "{folder}/lists";\nDir::Cache "{folder}/cache";\n'
        f'Dir::Etc::sourcelist "{folder}/sources.list";\nDir::Etc::sourceparts "{folder}/parts";\n'
    )
    command("apt-get", "update", "-q", apt=config)
    return config


def vmlinuz_of(deb: Path) -> tuple[str, bytes]:
    """The kernel in a package, and the name that it has there or, without a version in it, that of its folder."""
    with subprocess.Popen(["dpkg-deb", "--fsys-tarfile", deb], stdout=subprocess.PIPE) as unpack:
        assert unpack.stdout is not None
        with tarfile.open(fileobj=unpack.stdout, mode="r|") as archive:
            member = next(one for one in archive if one.isfile() and Path(one.name).name.startswith("vmlinuz"))
            content = archive.extractfile(member)
            assert content is not None
            data = content.read()
        unpack.kill()
    path = Path(member.name)
    return (path.name if "-" in path.name else f"vmlinuz-{path.parent.name}"), data


@pytest.fixture(scope="module")
def fetched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Path]]:
    if shutil.which("apt-get") is None or os.geteuid() != 0:
        pytest.fail("make kernels needs apt-get, as root")
    folder = tmp_path_factory.mktemp("kernels")
    command("dpkg", "--add-architecture", "i386")
    subprocess.run(["apt-get", "update", "-q"], check=False, capture_output=True)
    newer: list[Path] = []
    have: dict[str, Path] = {}

    def fetch(name: str) -> Path:
        if name not in have:
            if name in NEWER and not newer:
                newer.append(own_apt(folder / "apt"))
            apt = newer[0] if name in NEWER else None
            package = package_of(name) if apt is None else newer_package(name, apt)
            command("apt-get", "download", package, cwd=folder, apt=apt)
            deb = next(folder.glob(package.partition(":")[0] + "_*.deb"))
            file_name, data = vmlinuz_of(deb)
            have[name] = folder / file_name
            have[name].write_bytes(data)
            deb.unlink()
        return have[name]

    yield fetch
    shutil.rmtree(folder)


def run(path: Path, **options: object) -> tuple[dict[str, object], RunResult]:
    stub = find_stub(path)
    journey = Journey(kernel_scene(path, stub, ram="24M", target="2M@16M", **options))  # type: ignore[arg-type]
    result = journey.run()
    kernel = run_document(journey, result, stub)["kernel"]
    assert isinstance(kernel, dict)
    return kernel, result


@pytest.mark.parametrize("name", NAMES)
def test_what_is_found(fetched: Callable[[str], Path], name: str) -> None:
    path = fetched(name)
    stub = find_stub(path)
    assert stub.found_by == "kallsyms"
    hits = list(open_kernel(path).kernel.find(SIGNATURES[stub.form]))
    assert [piece.address + at for piece, at in hits] == [stub.linear + stub.entry]
    assert str(kernel_info(path)["version"]) in path.name
    if name in SEEN:
        parts = tuple(stub.parts[part] for part in ("identity_mapped", "virtual_mapped", "swap_pages"))
        assert (stub.form, len(stub.code), parts) == SEEN[name]
    if name in NEWER:
        assert (stub.form, stub.slot) == (StubForm.X86_64_6_14, True)


@pytest.mark.parametrize("name", NAMES)
def test_there_and_back_with_its_own_bytes(fetched: Callable[[str], Path], name: str) -> None:
    path = fetched(name)
    kernel, result = run(path)
    assert result.findings == []
    assert result.exit_status == 0
    assert kernel["unmodified"] is True
    assert kernel["executed_sha256"] == file_sha256(find_stub(path))
    assert kernel["pages_moved"] == 2 * PAGES


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("options", "catalogue"),
    [
        ({"callee": "ret"}, dict.fromkeys(CLASSIC, "B-01")),
        ({"own_gdt": True}, dict.fromkeys(NAMES, "B-07")),
        ({"callee": "plain"}, dict.fromkeys(("6.16", "6.17", "6.18"), "B-02")),
    ],
    ids=["ret", "own GDT", "plain"],
)
def test_its_known_faults(
    fetched: Callable[[str], Path], name: str, options: dict[str, object], catalogue: dict[str, str]
) -> None:
    kernel, result = run(fetched(name), **options)
    assert [one.catalogue for one in result.findings] == ([catalogue[name]] if name in catalogue else [])
    assert kernel["unmodified"] is True


@pytest.mark.parametrize("name", NAMES)
def test_lists_of_every_shape(fetched: Callable[[str], Path], name: str) -> None:
    path = fetched(name)
    bench = ListBench(kernel_scene(path, find_stub(path), ram="24M", target="2M@16M"))
    runs = [bench.run(shape) for shape in SHAPES]
    assert [run.shape for run in runs if not run.ok] == []
    assert [run.pages for run in runs[:6]] == [0, 1, 2, 511, 512, 2000]


@pytest.mark.parametrize("name", ["amd64", "6.12", "7"])
def test_five_levels(fetched: Callable[[str], Path], name: str) -> None:
    _, result = run(fetched(name), arch="x86_64-la57")
    assert result.findings == []


def test_pae(fetched: Callable[[str], Path]) -> None:
    path = fetched("686-pae")
    _, result = run(path, arch="i386-pae")
    (finding,) = result.findings
    assert finding.catalogue == "B-24"
    assert finding.where == "identity_mapped+0x9e"
    assert "the instruction after `mov %eax,%cr0`" in finding.because[0]
    kernel, result = run(path, arch="i386-pae", pae_back=True)
    assert result.findings == []
    assert kernel["pages_moved"] == 2 * PAGES


@pytest.mark.parametrize("name", ["amd64", "686-pae", "7"])
def test_the_debugger_stops_at_its_own_symbols(fetched: Callable[[str], Path], name: str) -> None:
    path = fetched(name)
    stub = find_stub(path)
    session = Session(kernel_scene(path, stub, ram="24M", target="2M@16M"))
    repl = Repl(session, stdout=io.StringIO())
    for line in ("goto transition suspend", "break swap_pages", "continue"):
        repl.output_of(line)
    page = int(session.journey.require_loaded().image.control_page)
    assert session.machine.cpu.pc == page + stub.parts["swap_pages"]
    assert "identity_mapped+0x" in repl.output_of("bt")
    session.machine.close()


def flipped(path: Path, folder: Path, stub: KernelStub, at: int) -> Path:
    """The vmlinux of ``path`` with one bit of the stub's byte ``at`` the other way round."""
    data = path.read_bytes()
    content = bytearray(decompress(payload(data, read_setup(data, ""), ""), "").data)
    content[content.index(stub.code) + at] ^= 1
    changed = folder / "vmlinux"
    changed.write_bytes(content)
    return changed


@pytest.mark.parametrize("name", ["cloud-amd64", "686-pae"])
def test_one_flipped_byte_is_a_finding(fetched: Callable[[str], Path], tmp_path: Path, name: str) -> None:
    path = fetched(name)
    stub = find_stub(path)
    virtual = stub.parts["virtual_mapped"]
    place = virtual + stub.code[virtual:].index(b"\x08\x00\x00") - 1  # where in the page the first saved word lies
    kernel, result = run(flipped(path, tmp_path, stub, place))
    assert len(result.findings) == 1
    assert kernel["unmodified"] is True  # of the changed file
    assert kernel["executed_sha256"] != stub.sha256


def test_the_uncompressed_kernel_is_taken_too(fetched: Callable[[str], Path], tmp_path: Path) -> None:
    path = fetched("cloud-amd64")
    stub = find_stub(path)
    plain = flipped(path, tmp_path, stub, len(stub.code) - 1)  # the trap behind the last ret: never executed
    found = find_stub(plain)
    assert (found.linear, found.parts) == (stub.linear, stub.parts)


@pytest.mark.parametrize(
    ("name", "faults"),
    [("cloud-amd64", ["B-37"]), ("6.16", ["B-02"]), ("6.17", ["B-02"]), ("6.18", ["B-02"]), ("7", [])],
)
def test_its_own_kexec_is_checked_in_a_boot(
    fetched: Callable[[str], Path],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    name: str,
    faults: list[str],
) -> None:
    """``kjump boot`` runs the whole kernel, whose first process kexecs an image without a way back."""
    initrd = tmp_path / "initrd.img"
    init = program("init", jumping_init(64, gdt=0, flags=0))
    initrd.write_bytes(cpio([directory("dev"), character("dev/console", 5, 1), init]))
    append = "console=ttyS0 no_console_suspend mitigations=off quiet"
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    status = main(["boot", str(fetched(name)), "--initrd", str(initrd), "--append", append, "--json"])
    told = json.loads(capsys.readouterr().out)
    assert (status, told["end"]) == (EXIT_FINDINGS if faults else 0, "reset"), told["console"][-2000:]
    assert told["console"].endswith("J")
    (jump,) = told["jumps"]
    assert jump["stub"] == str(find_stub(fetched(name)).form)
    assert jump["complete"]
    assert not [what for what, wrong in jump["checks"].items() if wrong and not what.startswith("known")]
    assert [finding["catalogue"] for finding in told["findings"]] == faults
