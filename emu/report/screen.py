"""What a person sees of a run: one calm screen.  Plain text when piped; 80 columns suffice."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence

from rich.console import Console
from rich.text import Text

from emu.journey.findings import Finding
from emu.journey.result import RunResult, Transition
from emu.journey.scene import default_target
from emu.units import PAGE_SHIFT

WIDTH = 79
_HEAD = f" # {'transition':<11}{'who':<8}{'instr':>9}  {'pages':<16}{'jump page':<27}checks"
_LABEL = 11
_DONE = {"swap": "swapped", "copy": "copied"}


def _row(number: int, transition: Transition) -> Text:
    instr = f"{transition.instructions:,}" if transition.instructions is not None else "-"
    if transition.pages_moved:
        pages = f"{transition.pages_moved:,} {_DONE[transition.moved_how]}"
    elif transition.saved_bytes is not None:
        pages = f"{transition.saved_bytes >> PAGE_SHIFT:,} saved"
    elif transition.restored_pages is not None:
        pages = f"{transition.restored_pages:,} placed"
    else:
        pages = f"{transition.listed:,} listed" if transition.listed else "-"
    who = " -> ".join(side for side in (transition.source, transition.target) if side != "-")
    text = f"{number:>2} {transition.name:<11}{who:<8}{instr:>9}  {pages:<16}{transition.jump_page or '-':<27}"
    row = Text(text)
    if transition.findings:
        row.append(f"{transition.findings} wrong", style="bold red")
    else:
        row.append("ok", style="green")
    return row


def _indented(label: str, text: str) -> list[str]:
    """``text`` in lines of at most WIDTH columns, the first with ``label``."""
    lines = textwrap.wrap(text, WIDTH - _LABEL - 1, break_on_hyphens=False, break_long_words=False) or [""]
    return [f" {label:<{_LABEL - 1}} {line}" if i == 0 else " " * (_LABEL + 1) + line for i, line in enumerate(lines)]


def show_finding(console: Console, number: int, finding: Finding, look: str) -> None:
    """One cause, its evidence, and a line to paste."""
    many = f"{len(finding.follows)} consequence{'s' * (len(finding.follows) != 1)}" if finding.follows else "no others"
    tag = f" (like {finding.catalogue})" if finding.catalogue else ""
    console.print(Text(f"FINDING {number}  {finding.kind} in `{finding.transition}`{tag}", style="bold red"), end="")
    console.print(f"    1 cause, {many}", highlight=False)
    show_evidence(console, finding)
    console.print(f" {'look':<{_LABEL - 1}} {look}", highlight=False, markup=False, soft_wrap=True)


def show_evidence(console: Console, finding: Finding) -> None:
    """Where, expected, actual, because, and what follows."""
    at = f", N {finding.position}" if finding.position is not None else ""
    console.print(f" {finding.where}{at}", highlight=False, markup=False, soft_wrap=True)
    for label, text in (("expected", finding.expected), ("actual", finding.actual)):
        for line in _indented(label, text):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    for index, reason in enumerate(finding.because):
        for line in _indented("because" if index == 0 else "", reason):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    for index, consequence in enumerate(finding.follows[:4]):
        for line in _indented("then" if index == 0 else "", consequence):
            console.print(line, highlight=False, markup=False, soft_wrap=True)
    if len(finding.follows) > 4:
        console.print(f"{'':<{_LABEL + 1}}and {len(finding.follows) - 4} more", highlight=False)


def show_run(console: Console, result: RunResult, *, verbose: bool = False) -> None:
    """The transitions of one scene, and what the kernels said."""
    console.print(result.scene.title(), style="bold", highlight=False, soft_wrap=True)
    console.print(_HEAD, style="dim", highlight=False, soft_wrap=True)
    for number, transition in enumerate(result.transitions, 1):
        console.print(_row(number, transition), soft_wrap=True)
    for name in result.not_run:
        console.print(f" - {name:<11}not run", style="yellow", highlight=False)
    if verbose:
        for transition in result.transitions:
            checks = ", ".join(
                f"{name} {'ok' if not count else f'{count} wrong'}" for name, count in transition.checks.items()
            )
            for line in _indented(transition.name, checks):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        if pages := _control_pages(result):
            for line in _indented("pages", pages):
                console.print(line, highlight=False, markup=False, soft_wrap=True)
        for line in result.console:
            console.print(f" {line}", highlight=False, markup=False, soft_wrap=True)
        for start, end in result.volatile:
            console.print(f" volatile p:{start:#x} .. p:{end:#x}  {end - start} bytes", highlight=False)
        return
    told = [line for line in result.console if "awake" in line or "pages intact" in line or "damaged" in line]
    if told:
        console.print(" " + "   ".join(told[:2]), highlight=False, markup=False, soft_wrap=True)
    if "save" in result.scene.journey.kinds and (kept := _kept(result)):
        console.print(f" {kept}", highlight=False, markup=False, soft_wrap=True)


def _control_pages(result: RunResult) -> str:
    """What the kjump flag costs, group by group."""
    load = next((one for one in result.transitions if one.control_pages), None)
    if load is None:
        return ""
    return "the load takes " + ", ".join(f"{name} {count:,}" for name, count in load.control_pages.items())


def _kept(result: RunResult) -> str:
    kept, size = result.peer_state_kept, result.image_bytes
    words = [f"image {size:,} bytes"] if size is not None else []
    if kept is not None:
        words.append("B's state was kept between its visits" if kept else "B started afresh in each visit")
    entries = {one.entry_instructions for one in result.transitions if one.entry_instructions is not None}
    if entries:
        words.append(f"entry points {', '.join(map(str, sorted(entries)))} instructions")
    return "   ".join(words)


def show_verdict(console: Console, results: Sequence[RunResult]) -> None:
    """The last lines: what was compared, and what to type next."""
    number = 0
    for result in results:
        for finding in result.findings:
            number += 1
            console.print()
            show_finding(console, number, finding, look_at(result, finding))
    transitions = sum(len(result.transitions) for result in results)
    pages = max((t.pages_compared for result in results for t in result.transitions), default=0)
    total = max((len(list(result.scene.memory_map.ram_pages())) for result in results), default=0)
    volatile = max((result.volatile_bytes for result in results), default=0)
    hazards = sum(result.hazards for result in results)
    ok = all(result.ok for result in results)
    head = Text("ok" if ok else "NOT OK", style="bold green" if ok else "bold red")
    head.append(f"  {transitions} transitions, {number} findings, {hazards} hazards.", style="not bold")
    console.print(head)
    if pages:
        console.print(
            f"    compared in each jump: {pages:,} of {total:,} pages; {volatile / 1024:.1f} KiB declared volatile",
            highlight=False,
        )
    if not all(result.scene.checks for result in results):
        console.print("    Python's checks were off: only the guests checked", style="yellow")
    console.print("next: " + _next(results), highlight=False, soft_wrap=True)


def _next(results: Sequence[RunResult]) -> str:
    if all(result.ok for result in results):
        return "kjump debug | kjump run --stub YOUR.S | -v shows checks and consoles | --list"
    bad = next(result for result in results if not result.ok)
    return rerun(bad, verbose=True)


def look_at(result: RunResult, finding: Finding) -> str:
    """The command that opens the debugger where ``finding`` is."""
    at = f"--at {str(finding.position).replace(',', '')}" if finding.position is not None else ""
    return f"{rerun(result, command='kjump debug')} {at}".strip()


def rerun(result: RunResult, *, verbose: bool = False, command: str = "kjump run") -> str:
    """The command that runs the same scene alone again."""
    scene = result.scene
    words = [command, "" if scene.journey.name == "jump" else scene.journey.name, f"--arch {scene.arch}"]
    if scene.transfer != scene.journey.transfer:
        words.append(f"--transfer {scene.transfer}")
    if scene.handoff != scene.journey.handoff:
        words.append(f"--handoff {scene.handoff}")
    words += [f"--stub {path}" for path in scene.stubs]
    if scene.hostile:
        words.append(f"--hostile {scene.hostile}")
    if scene.ram_text != scene.journey.ram:
        words.append(f"--ram {scene.ram_text}")
    if scene.target != default_target(scene.journey, scene.transfer):
        words.append(f"--target {scene.target}")
    words.append(f"--seed {scene.seed}" if scene.seed != 1 else "")
    words.append("-v" if verbose else "")
    return " ".join(word for word in words if word)
