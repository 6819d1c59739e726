"""Loads that kernel A refuses, and scenes that cannot be run: each says what and where, once."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from emu import resources
from emu.errors import AssemblyError, BadCommandLine, ImageError, JourneyError, KjumpError
from emu.journey.journey import Journey
from emu.journey.scene import Scene, find_journey, make_scene, parse_arch, read_journey
from emu.kexec.arch import Arch


@pytest.mark.parametrize("arch", [Arch.I386, Arch.X86_64])
@pytest.mark.parametrize(
    ("changes", "errno", "says"),
    [
        ({"ram": "32M", "target": "15540K@16M"}, 12, "no free page is left"),
        ({"ram": "32M", "target": "16M@16M"}, 22, "more than half of RAM"),
        ({"target": "2M@18M"}, 99, "segment p:0x1000000..p:0x10"),
    ],
)
def test_a_refused_load_reaches_a_and_is_the_finding(
    arch: Arch, changes: dict[str, str], errno: int, says: str, scene_of: Callable[..., Scene]
) -> None:
    result = Journey(scene_of(arch, **changes)).run()
    assert not result.ok
    assert result.console[-1] == f"A| load refused, errno {errno}"
    assert result.exit_status == 1
    assert len(result.findings) == 1
    assert result.findings[0].kind == "load refused"
    assert says in result.findings[0].actual
    assert result.not_run == ["suspend", "return"]


JUMP = (resources.kernels_dir() / "jump.toml").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        (
            'ram = "64M"',
            'rom = "64M"',
            r"odd\.toml:9: unknown key machine\.rom \(known: e820, ram, restore_base, target\)",
        ),
        ('summary = "A', 'sumary = "A', r"odd\.toml:3: unknown key sumary \(known: command_line, faults, handoff"),
        ('ram = "64M"', "ram = 64", r"odd\.toml:9: machine\.ram must be a string"),
        ("[machine]\n", "[[machine]]\n", r"odd\.toml:8: machine is not a table"),
        ('"load", "suspend"', '"suspend", "load"', r"odd\.toml:4: 'suspend' cannot come first"),
        ("[kernels]", "[kernels", r"odd\.toml: is not TOML: .*line 12"),
        ('target = "16M@16M"', 'target = "16M@16M"\ne820 = "all"', r"odd\.toml:11: machine\.e820 must be a list"),
    ],
)
def test_an_odd_journey_file_is_refused_with_the_line(tmp_path: Path, old: str, new: str, error: str) -> None:
    assert JUMP.count(old) == 1
    path = tmp_path / "odd.toml"
    path.write_text(JUMP.replace(old, new), encoding="utf-8")
    with pytest.raises(JourneyError, match=error):
        read_journey(path)


@pytest.mark.parametrize(
    ("tables", "error"),
    [
        ('[[faults]]\nwhat = "fire"', r"odd\.toml:\d+: no fault is called 'fire' \(one of memory, jump_page"),
        ('[[faults]]\nwhat = "image_used"\nafter = "boot"', "the journey has no transition 'boot'"),
        (
            (
                '[[faults]]\nwhat = "memory"\nafter = "suspend"\naddress = 4\nbit = 1\n'
                '[[faults]]\nwhat = "memory"\nafter = "load"\naddress = 4\nbit = 1\nhow = 2'
            ),
            "unknown key faults.how",
        ),
        ('[[faults]]\nwhat = "memory"\nafter = "load"\naddress = 4\nbit = 8', "faults.bit must be a number up to 7"),
        ('[[faults]]\nwhat = "jump_page"\nafter = "load"\nfield = "fog"\nvalue = 1', "no field 'fog'"),
    ],
)
def test_an_odd_fault_is_refused_with_the_line(tmp_path: Path, tables: str, error: str) -> None:
    path = tmp_path / "odd.toml"
    path.write_text(f"{JUMP}\n{tables}\n", encoding="utf-8")
    with pytest.raises(JourneyError, match=error) as raised:
        read_journey(path)
    if "how" in tables:  # the line in the second of two tables
        wrong = path.read_text(encoding="utf-8").splitlines().index("how = 2") + 1
        assert f"odd.toml:{wrong}:" in str(raised.value)


def test_rounds_of_a_transition_have_names_of_their_own(tmp_path: Path) -> None:
    path = tmp_path / "round.toml"
    rounds = '"load", "suspend", "return", "rejump", "return"'
    path.write_text(JUMP.replace('"load", "suspend", "return"', rounds), encoding="utf-8")
    assert read_journey(path).transitions == ("load", "suspend", "return", "rejump", "return 2")
    path.write_text(JUMP.replace('"load", "suspend", "return"', '"load", "suspend", "boot"'), encoding="utf-8")
    with pytest.raises(JourneyError, match="'boot' cannot come after suspend"):
        read_journey(path)
    path.write_text(JUMP.replace("{handoff}", "{handshake}"), encoding="utf-8")
    with pytest.raises(JourneyError, match="the template does not work"):
        read_journey(path)


def test_a_journey_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    with pytest.raises(JourneyError, match=r"none\.toml: no such journey file"):
        find_journey(str(tmp_path / "none.toml"))
    (tmp_path / "bytes.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(JourneyError, match=r"bytes\.toml: cannot be read"):
        find_journey(str(tmp_path / "bytes.toml"))
    with pytest.raises(JourneyError, match=r"no journey is called leap .*jump"):
        find_journey("leap")


def test_a_missing_kernel_file_and_a_missing_width(tmp_path: Path) -> None:
    path = tmp_path / "mine.toml"
    path.write_text(JUMP.replace("a64.S", "a65.S"), encoding="utf-8")
    with pytest.raises(ImageError, match=r"a65\.S: no such file"):
        Journey(make_scene(read_journey(path), ram="24M", target="2M@16M"))
    path.write_text(JUMP.replace(', 64 = "a64.S"', ""), encoding="utf-8")
    with pytest.raises(JourneyError, match="the journey has no 64-bit kernel A"):
        Journey(make_scene(read_journey(path), ram="24M", target="2M@16M"))


def test_a_syntax_error_in_a_stub_says_where(scene_of: Callable[..., Scene], changed_stub: Callable[..., Path]) -> None:
    change = ("    popfq\n    popq    %r15\n", "    popfq\n    popq    %r55\n")
    stub = changed_stub(Arch.X86_64, "relocate_new_kernel.S", change)
    with pytest.raises(AssemblyError, match=r"my_relocate_new_kernel\.S:245:\d+: "):
        Journey(scene_of(stubs=(stub,)))


@pytest.mark.parametrize(
    ("changes", "error"),
    [
        ({"ram": "16M"}, r"--ram: 16 MiB of RAM is too small.*at least 24 MiB"),
        ({"ram": "lots"}, r"--ram: 'lots' is no size"),
        ({"ram": "24M", "target": "16M@16M"}, r"p:0x1000000\.\.p:0x2000000 does not begin and end in RAM"),
        ({"transfer": "teleport"}, "--transfer: transfer teleport is not one of reserved, copy, swap"),
        ({"handoff": "shout"}, "--handoff: hand-off shout is not one of page, cmdline, stack"),
        ({"target": "2M@oops"}, "kexec_jump="),
    ],
)
def test_a_scene_that_cannot_be_is_refused(changes: dict[str, str], error: str) -> None:
    with pytest.raises(KjumpError, match=error) as caught:
        make_scene(find_journey("jump"), **changes)  # type: ignore[arg-type]
    assert isinstance(caught.value, JourneyError | BadCommandLine)


def test_an_unknown_architecture_is_refused_with_the_known_ones() -> None:
    with pytest.raises(JourneyError, match=r"no architecture is called mips \(one of i386, i386-pae, x86_64"):
        parse_arch("mips")
