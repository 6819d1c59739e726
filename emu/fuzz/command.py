"""``kjump fuzz``, ``kjump replay`` and ``kjump minimize``."""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable, Sequence
from pathlib import Path

from rich.console import Console
from rich.text import Text

from emu.errors import EXIT_FINDINGS, FuzzError
from emu.fuzz.batch import Plan, close_worlds, judged, require_sound, world_of
from emu.fuzz.campaign import Totals
from emu.fuzz.case_file import CaseFile, read_case, write_case
from emu.fuzz.executors import executor_for
from emu.fuzz.fields import weight
from emu.fuzz.folder import Folder
from emu.fuzz.live import View
from emu.fuzz.minimize import MOST_RUNS, minimize
from emu.fuzz.plants import PLANTS, SECONDS, hunt
from emu.fuzz.runner import Campaign, Limits
from emu.fuzz.sweep import Leg, legs, show_sweep
from emu.fuzz.targets.table import TARGETS, find_target
from emu.fuzz.verdict import Verdict
from emu.journey.scene import HANDOFFS, TRANSFERS, Scene
from emu.journey.scene_data import scene_json

_CASES = 2000
_TARGET = "entry"
SMALL_RAM, SMALL_TARGET, SMALL_AREA = "24M", "2M@16M", "2M"
"""The machine of a campaign where nobody says otherwise: what is fuzzed is the same, and it boots in a second."""


def add_fuzz_commands(
    commands: argparse._SubParsersAction[argparse.ArgumentParser],
    scene_options: Callable[[argparse.ArgumentParser], None],
    scenes: Callable[[argparse.Namespace], list[Scene]],
    debug: Callable[[CaseFile], int],
) -> None:
    """Add the commands; ``scene_options`` and ``scenes`` are those of every command with a scene."""
    parser = commands.add_parser("fuzz", help="look for inputs with which a jump goes silently wrong")
    parser.add_argument("what", metavar="TARGET", nargs="?", help=f"of {', '.join(TARGETS)} (default: {_TARGET})")
    scene_options(parser)
    parser.add_argument("--list", action="store_true", help="the targets, what each promises, what is known by design")
    parser.add_argument("--cases", type=int, metavar="N", help=f"stop after N cases in all (default: {_CASES:,})")
    parser.add_argument(
        "--time", type=float, metavar="S", help="stop at the end of the round that is under way after S seconds"
    )
    parser.add_argument("--jobs", type=int, default=1, metavar="N", help="processes; results do not depend on it")
    parser.add_argument("--scheduler", default="", metavar="tcp://HOST:PORT", help="run the batches on a Dask cluster")
    parser.add_argument("--out", metavar="DIR", help="the campaign's folder: corpus, findings, statistics")
    parser.add_argument("--resume", action="store_true", help="go on with the campaign in --out")
    parser.add_argument(
        "--merge", metavar="DIR", action="append", default=[], help="begin with this campaign's corpus too"
    )
    parser.add_argument("--check", action="store_true", help="fuzz the fuzzer: plant ten bugs, and find each")
    parser.add_argument(
        "--sweep",
        action="store_true",
        help="a campaign of every target, transfer and hand-off that is not named, --jobs of them at a time",
    )
    parser.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    parser.set_defaults(action=lambda args: fuzz_main(args, scenes))

    replay = commands.add_parser("replay", help="run one case again, exactly")
    replay.add_argument("case", help="a case file, as in a campaign's findings")
    replay.add_argument("--debug", action="store_true", help="open the debugger in it, at the first bad store")
    replay.add_argument("--json", action="store_true", help="one JSON document on stdout, nothing else")
    replay.set_defaults(action=lambda args: replay_main(args, debug))

    smaller = commands.add_parser("minimize", help="make a case smaller while its finding stays")
    smaller.add_argument("case", help="a case file")
    smaller.add_argument("-o", dest="output", metavar="FILE", help="where to (default: FILE.min.json)")
    smaller.add_argument(
        "--runs", type=int, default=MOST_RUNS, metavar="N", help=f"at most N runs (default: {MOST_RUNS:,})"
    )
    smaller.set_defaults(action=minimize_main)


def _list() -> int:
    console = Console(highlight=False)
    for target in TARGETS.values():
        console.print(f"{target.name:<10}{target.summary}")
        console.print(f"{'':<10}contract: {target.contract}")
        for name, why in target.known:
            console.print(f"{'':<10}known by design: {name}: {why}")
    console.print()
    for verdict in Verdict:
        console.print(f"{'finding' if verdict.is_finding else '':<10}{verdict:<11}{verdict.meaning}")
    return 0


def _hunts(seed: int) -> int:
    """Plant each bug and hunt it; 1 if one was not found in time, or not made small."""
    console = Console(highlight=False, soft_wrap=True)
    console.print(f"{'bug':<30}{'target':<10}{'seconds':>8}{'cases':>8}{'bytes':>7}{'small':>7}")
    bad = 0
    for plant in PLANTS:
        one = hunt(plant, seed)
        verdict = "" if one.ok else "  NOT FOUND" if one.found is None else "  TOO LATE OR TOO LARGE"
        bad += not one.ok
        console.print(
            f"{plant.name:<30}{plant.target:<10}{one.seconds:8.1f}{one.cases:8,}{one.first:7}{one.small:7}{verdict}"
        )
    console.print(f"{len(PLANTS) - bad} of {len(PLANTS)} found within {SECONDS:.0f} s and made small")
    return EXIT_FINDINGS if bad else 0


def _check(args: argparse.Namespace) -> None:
    for name in ("cases", "jobs"):
        value = getattr(args, name)
        if value is not None and value < 1:
            raise FuzzError(f"{value} is too few", where=f"--{name}")
    if args.resume and not args.out:
        raise FuzzError("wants a campaign to go on with", where="--resume", hint="name its folder with --out")


def _small(args: argparse.Namespace, **changes: str | None) -> argparse.Namespace:
    """The options of a campaign's scene: a fast and small one, unless somebody says otherwise."""
    small = argparse.Namespace(**{**vars(args), **changes, "fast": True})
    if small.ram is None and small.target is None:
        small.ram = SMALL_RAM
        small.target = SMALL_AREA if small.transfer == "reserved" else SMALL_TARGET
    return small


def _sweep(args: argparse.Namespace, scenes: Callable[[argparse.Namespace], list[Scene]]) -> int:
    """A campaign in each scene; 1 where one of them has findings."""
    for name in ("time", "scheduler", "merge"):
        if getattr(args, name):
            raise FuzzError("is for a single campaign", where=f"--{name}", hint="leave --sweep away")
    for name, known in (("transfer", TRANSFERS), ("handoff", HANDOFFS)):
        if getattr(args, name) not in (None, *known):
            raise FuzzError(f"{getattr(args, name)} is not one of {', '.join(known)}", where=f"--{name}")
    targets = [find_target(args.what)] if args.what else list(TARGETS.values())
    out = Path(args.out) if args.out else None
    campaigns = legs(
        targets,
        lambda transfer, handoff: scenes(_small(args, transfer=transfer, handoff=handoff)),
        args.transfer,
        args.handoff,
        lambda plan: Leg(plan, args.cases or _CASES, out, args.resume),
    )
    if not campaigns:
        raise FuzzError("no target goes with this transfer and hand-off", where="--sweep")
    return show_sweep(campaigns, executor_for(args.jobs, ""), as_json=args.json)


def fuzz_main(args: argparse.Namespace, scenes: Callable[[argparse.Namespace], list[Scene]]) -> int:
    """Run a campaign as ``args`` say; the answer is the exit status."""
    if args.list:
        return _list()
    if args.check:
        return _hunts(args.seed)
    _check(args)
    if args.sweep:
        return _sweep(args, scenes)
    chosen = scenes(_small(args))
    if len(chosen) > 1:
        raise FuzzError("a campaign is of one architecture", where="--arch", hint="name it, or use --sweep")
    scene = chosen[0]
    plan = Plan(find_target(args.what or _TARGET).name, scene_json(scene), scene.seed)
    require_sound(plan)
    folder = Folder(Path(args.out), plan, resume=args.resume) if args.out else None
    limits = Limits(args.cases if args.cases or args.time else _CASES, args.time)
    console = Console(stderr=args.json, highlight=False)
    title = f"fuzz {plan.target}  {scene.arch} {scene.transfer}/{scene.handoff}  seed {plan.seed}  {args.jobs} jobs"
    with View(console, title + (f"  -> {args.out}" if args.out else "")) as view:
        campaign = Campaign(plan, lambda: executor_for(args.jobs, args.scheduler), folder, view.tell)
        _merged(campaign, [Path(name) for name in args.merge])
        totals = campaign.run(limits)
    close_worlds()
    if args.json:
        print(json.dumps(totals.to_json()))
    else:
        view.end(totals)
        _next(console, totals, folder)
    return EXIT_FINDINGS if totals.findings else 0


def _next(console: Console, totals: Totals, folder: Folder | None) -> None:
    """What to type next."""
    if totals.findings and folder is not None:
        first = next(iter(totals.findings.values()))
        path = folder.finding_path(first)
        console.print(Text(f"next: kjump replay {path} | kjump minimize {path}"))
    elif totals.findings:
        console.print("next: the same with --out DIR keeps the cases")


def _merged(campaign: Campaign, others: Sequence[Path]) -> None:
    """Begin with the corpus of other campaigns, as far as it covers something new."""
    cases = [read_case(path).case for other in others for path in sorted((other / "corpus").glob("*.json"))]
    if others and not cases:
        raise FuzzError("no corpus is there", where=str(others[0]))
    for case in cases:
        if case.target != campaign.plan.target:
            raise FuzzError(f"holds cases of target {case.target}", where="--merge")
    campaign.learn(cases)


def replay_main(args: argparse.Namespace, debug: Callable[[CaseFile], int]) -> int:
    """Run a case again; the answer is the exit status."""
    file = read_case(Path(args.case))
    if args.debug:
        return debug(file)
    result = judged(file.plan, file.case)
    if args.json:
        print(json.dumps({**result.to_json(), "key": result.key, "as_found": result.key == file.key or not file.key}))
    else:
        console = Console(highlight=False)
        console.print(Text(f"{result.verdict}: {result.verdict.meaning}"))
        console.print(Text(f"  case    {file.case}"))
        console.print(Text(f"  key     {result.key}"))
        if result.detail:
            console.print(Text(f"  detail  {result.detail}"))
        if file.key and file.key != result.key:
            console.print(Text(f"  found   {file.key}  (it is another now)"))
    return EXIT_FINDINGS if result.verdict.is_finding else 0


def minimize_main(args: argparse.Namespace) -> int:
    """Make a case smaller; the answer is the exit status."""
    path = Path(args.case)
    file = read_case(path)
    first = judged(file.plan, file.case)
    if not first.verdict.is_finding:
        raise FuzzError(f"is no finding: {first.verdict}", where=str(path), hint="only what is wrong is made smaller")
    spec = world_of(file.plan).spec
    small = minimize(spec, file.case, first.key, lambda case: judged(file.plan, case).key, most=args.runs)
    output = Path(args.output) if args.output else path.with_suffix(".min.json")
    write_case(output, file.plan, small, judged(file.plan, small), file.note)
    print(f"{weight(spec, file.case)} bytes to {weight(spec, small)}: {small}\n{output}")
    return EXIT_FINDINGS
