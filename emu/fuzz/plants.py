"""Ten bugs, planted one at a time, that the fuzzer must find from an empty corpus: the fuzzer's own test.

Each is a change of one text of a source of ours, or of the Python loader, and names the target that has to find it.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from unittest.mock import patch

from emu import resources
from emu.errors import FuzzError
from emu.fuzz.batch import Plan, close_worlds, judged, world_of
from emu.fuzz.campaign import Found
from emu.fuzz.executors import Inline
from emu.fuzz.fields import weight
from emu.fuzz.minimize import minimize
from emu.fuzz.runner import Campaign, Limits
from emu.fuzz.verdict import Verdict
from emu.journey.scene import find_journey, make_scene
from emu.journey.scene_data import scene_json

SECONDS = 60.0
"""Within which each must be found, on one processor."""
SHARE = 0.1
"""Of the bytes of the first case, which the minimised one may still have."""
_MOST_RUNS = 800


@dataclass(frozen=True, slots=True)
class Plant:
    """A bug: ``old`` in ``file`` becomes ``new``; in a file of Python the function ``old`` does nothing."""

    name: str
    target: str
    file: str
    old: str
    new: str
    why: str


PLANTS = (
    Plant(
        "walker off by one",
        "list",
        "asm/x86_64/relocate_new_kernel.S",
        "    addq    $8, %rbx\nhave_entry:",
        "    addq    $8, %rbx\n    testb   $0xf0, %cl\n    jz      have_entry\n    addq    $8, %rbx\nhave_entry:",
        "an entry with bits that mean nothing makes the walker skip the next one",
    ),
    Plant(
        "list done early",
        "list",
        "asm/x86_64/relocate_new_kernel.S",
        "    testb   $IND_SOURCE, %cl\n    jz      next_entry",
        "    testb   $IND_SOURCE, %cl\n    jz      list_done",
        "an entry without a flag ends the list in place of being ignored",
    ),
    Plant(
        "stack taken from the peer",
        "regs",
        "asm/x86_64/jump_entry.S",
        "    leaq    entry_page + PAGE_SIZE(%rip), %rsp\n",
        "",
        "the entry has no stack of its own: whoever jumps to it must have one",
    ),
    Plant(
        "direction flag trusted",
        "regs",
        "asm/x86_64/relocate_new_kernel.S",
        "    pushq   $0                                  # IF, DF, TF, NT, AC: none of them in here\n    popfq",
        "    pushq   $0\n    addq    $8, %rsp",
        "the flags of the caller are kept while pages move",
    ),
    Plant(
        "interrupts let in",
        "irq",
        "asm/x86_64/relocate_new_kernel.S",
        "    pushq   $0                                  # IF, DF, TF, NT, AC: none of them in here\n    popfq",
        "    pushq   $0x200\n    popfq",
        "an interrupt that waits is taken while there are no tables for it",
    ),
    Plant(
        "no range check of the entry",
        "entry",
        "kernels/b64.S",
        "\tcmp\tJUMP_PAGE_ENTRY_PAGE(%rdi), %rcx\t# it is inside the entry code page ...\n\tjne\tbad_jump_page\n",
        "",
        "B goes to any address that a cookie lies before",
    ),
    Plant(
        "kind of the cookie unchecked",
        "entry",
        "kernels/b64.S",
        "\tcmpl\t$COOKIE_AFTER_IMAGE_SAVE, 4-COOKIE_SIZE(%rax)\n\tjne\tbad_jump_page\n",
        "",
        "B goes to after_resume as readily as to after_image_save",
    ),
    Plant(
        "checksum unchecked",
        "jumpbuf",
        "kernels/lib64.inc",
        "\tlea\twhat_checksum(%rip), %rsi\n\ttest\t%eax, %eax\n\tjnz\t1f\n",
        "",
        "a jump page with flipped bytes is believed",
    ),
    Plant(
        "quote at the end of a line",
        "cmdline",
        "kernels/cmdline64.inc",
        "\tcmpb\t$QUOTE, -1(%rdi)\n\tjne\tparse_word\n",
        "",
        "the last character of a quoted word is cut off though it is no quote",
    ),
    Plant(
        "overlaps unchecked",
        "segments",
        "emu/kexec/segments.py",
        "emu.kexec.segments._check_overlaps",
        "",
        "kexec_load takes two segments for the same page",
    ),
)


@dataclass(frozen=True, slots=True)
class Hunt:
    """How a plant was found: seconds and cases until then, weights of the first case and the minimised one."""

    plant: Plant
    seconds: float
    cases: int
    found: Found | None
    first: int = 0
    small: int = 0

    @property
    def ok(self) -> bool:
        """Found in time, and made small."""
        if self.found is None or self.found.result.verdict is Verdict.TOOL:
            return False
        return self.seconds <= SECONDS and self.small < SHARE * self.first


def planted_file(plant: Plant, folder: Path) -> Path:
    """The file with the bug in it, laid down in ``folder``; raises FuzzError where its text is not there once."""
    source = (resources.asm_dir() if plant.file.startswith("asm/") else resources.kernels_dir()).parent / plant.file
    text = source.read_text(encoding="utf-8")
    if text.count(plant.old) != 1:
        raise FuzzError(f"the text to change is there {text.count(plant.old)} times", where=plant.file)
    path = folder / source.name
    path.write_text(text.replace(plant.old, plant.new), encoding="utf-8")
    return path


@contextmanager
def planted(plant: Plant, seed: int) -> Iterator[Plan]:
    """The plan of a campaign in which ``plant`` is in the ground."""
    with TemporaryDirectory(prefix="kjump-plant-") as name, ExitStack() as stack:
        folder = Path(name)
        journey = find_journey("jump")
        stubs: tuple[Path, ...] = ()
        if plant.file.startswith("emu/"):
            stack.enter_context(patch(plant.old, lambda *_arguments: None))
        elif plant.file.startswith("asm/"):
            stubs = (planted_file(plant, folder),)
        else:
            path = planted_file(plant, folder)
            for other in resources.kernels_dir().iterdir():
                if other.is_file() and other.name != path.name:
                    (folder / other.name).write_bytes(other.read_bytes())
            journey = find_journey(str(folder / "jump.toml"))
            stack.enter_context(patch("emu.resources.kernels_dir", lambda: folder))
        scene = make_scene(journey, ram="24M", target="2M@16M", stubs=stubs, seed=seed)
        close_worlds()
        yield Plan(plant.target, scene_json(scene), seed)
        close_worlds()


def hunt(plant: Plant, seed: int = 1) -> Hunt:
    """Fuzz until the bug is found or the time is over, and minimise the first case."""
    with planted(plant, seed) as plan:
        world_of(plan)  # it boots; the time is that of the search
        began = time.process_time()
        campaign = Campaign(plan, Inline)
        while not campaign.totals.findings and time.process_time() - began < SECONDS:
            campaign.run(Limits(campaign.totals.cases + 64))
        seconds = time.process_time() - began
        totals = campaign.totals
        found = next(iter(totals.findings.values()), None)
        if found is None:
            return Hunt(plant, seconds, totals.cases, None)
        spec = world_of(plan).spec
        key = found.key
        small = minimize(spec, found.case, key, lambda case: judged(plan, case).key, most=_MOST_RUNS)
        return replace(
            Hunt(plant, seconds, totals.cases, found), first=weight(spec, found.case), small=weight(spec, small)
        )
