"""The campaign on disk: stopped at any instant, by kill -9 too, and taken up again.

``state.json`` is what counts: it is replaced as a whole at the end of each round, after everything that it speaks of
has been written.  Batches of a round that has not ended lie in ``pending`` and are not run again.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from emu.errors import FuzzError
from emu.fuzz.batch import Batch, BatchResult, Plan
from emu.fuzz.campaign import Found, Totals
from emu.fuzz.case import Case
from emu.fuzz.case_file import write_case, write_whole
from emu.fuzz.target import Cover
from emu.fuzz.verdict import Result, Verdict

_VERSION = "kjump campaign 1"


def _result_json(result: Result) -> dict[str, Any]:
    return result.to_json() | {"past": result.past}


def _result_from(data: dict[str, Any]) -> Result:
    texts = {name: str(data[name]) for name in ("row", "why", "place", "transition", "mode", "detail")}
    return Result(Verdict(data["verdict"]), past=bool(data["past"]), **texts)


def _cover_json(cover: frozenset[Cover] | set[Cover]) -> list[list[Any]]:
    return [list(one) for one in sorted(cover)]


def _cover_from(data: list[list[Any]]) -> frozenset[Cover]:
    return frozenset((str(part), str(place), int(width)) for part, place, width in data)


def batch_json(result: BatchResult) -> dict[str, Any]:
    """A batch's result as plain data."""
    return {
        "number": result.number,
        "first": result.first,
        "count": result.count,
        "tally": [[row, verdict, count] for (row, verdict), count in result.tally.items()],
        "past": result.past,
        "findings": [[index, case.to_json(), _result_json(one)] for index, case, one in result.findings],
        "keys": dict(result.keys),
        "news": [[index, case.to_json(), _cover_json(cover)] for index, case, cover in result.news],
        "seconds": result.seconds,
    }


def batch_from(data: dict[str, Any]) -> BatchResult:
    """The result behind :func:`batch_json`."""
    return BatchResult(
        int(data["number"]),
        int(data["first"]),
        int(data["count"]),
        Counter({(row, verdict): int(count) for row, verdict, count in data["tally"]}),
        int(data["past"]),
        [(int(index), Case.from_json(case), _result_from(one)) for index, case, one in data["findings"]],
        Counter(data["keys"]),
        [(int(index), Case.from_json(case), _cover_from(cover)) for index, case, cover in data["news"]],
        float(data["seconds"]),
    )


def finding_path(folder: Path, found: Found) -> Path:
    """Where a finding's case lies in a campaign's ``folder``."""
    digest = hashlib.sha256(found.key.encode()).hexdigest()[:12]
    return folder / "findings" / f"{found.result.verdict}-{digest}.json"


class Folder:
    """One campaign's folder; raises FuzzError for what is none."""

    def __init__(self, path: Path, plan: Plan, *, resume: bool) -> None:
        self.path = path
        self.plan = plan
        head = path / "campaign.json"
        if head.is_file():
            if not resume:
                raise FuzzError("holds a campaign", where=str(path), hint="--resume goes on with it")
            self._check(head)
        elif resume:
            raise FuzzError("holds no campaign", where=str(path), hint="leave --resume away to begin one")
        else:
            self._begin(head)

    def _make(self) -> None:
        """The folders in it, of which a process that was killed may have left one out."""
        try:
            for name in ("corpus", "findings", "pending"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise FuzzError(f"cannot be made: {error.strerror}", where=str(self.path)) from error

    def _begin(self, head: Path) -> None:
        self._make()
        write_whole(head, json.dumps({"kjump": _VERSION, **self.plan.to_json()}, indent=1) + "\n")
        self.log(f"began: {self.plan.target}, seed {self.plan.seed}")

    def _check(self, head: Path) -> None:
        try:
            document = json.loads(head.read_text(encoding="utf-8"))
        except (OSError, ValueError) as error:
            raise FuzzError(f"cannot be read: {error}", where=str(head)) from error
        if document != {"kjump": _VERSION, **self.plan.to_json()}:
            raise FuzzError("is a campaign of another target, scene or seed", where=str(self.path))
        self._make()
        self.log("resumed")

    def log(self, text: str) -> None:
        """Append a line to the log."""
        with (self.path / "log.txt").open("a", encoding="utf-8") as file:
            file.write(text + "\n")

    # ---- totals ----------------------------------------------------------------------------------------------------

    def load(self) -> Totals:
        """The totals at the end of the last whole round; files that they do not speak of are taken away."""
        state = self.path / "state.json"
        totals = Totals()
        if state.is_file():
            try:
                document = json.loads(state.read_text(encoding="utf-8"))
                totals = self._totals(document)
            except (OSError, ValueError, KeyError, TypeError) as error:
                raise FuzzError(f"cannot be read: {error}", where=str(state)) from error
        for number, path in enumerate(sorted((self.path / "corpus").glob("*.json"))):
            if number >= len(totals.corpus):
                path.unlink()
        return totals

    def _totals(self, document: dict[str, Any]) -> Totals:
        findings = {}
        for key, number, index, case, result in document["findings"]:
            findings[key] = Found(key, int(number), int(index), Case.from_json(case), _result_from(result))
        return Totals(
            rounds=int(document["rounds"]),
            cases=int(document["cases"]),
            past=int(document["past"]),
            tally=Counter({(row, verdict): int(count) for row, verdict, count in document["tally"]}),
            keys=Counter(document["keys"]),
            corpus=[Case.from_json(case) for case in document["corpus"]],
            covered=set(_cover_from(document["covered"])),
            findings=findings,
            seconds=float(document["seconds"]),
            worker_seconds=float(document["worker_seconds"]),
            last_new=int(document["last_new"]),
        )

    def commit(self, totals: Totals, added: Sequence[Case]) -> None:
        """A round has ended: new corpus and findings first, then the totals that speak of them."""
        for number, case in enumerate(added, len(totals.corpus) - len(added)):
            write_case(self.path / "corpus" / f"{number:05}.json", self.plan, case)
        for found in totals.findings.values():
            path = self.finding_path(found)
            if not path.is_file():
                write_case(path, self.plan, found.case, found.result)
                self.log(f"case {totals.cases:,}: {found.key}: {found.case}")
        write_whole(self.path / "state.json", json.dumps(self._state(totals)) + "\n")
        write_whole(self.path / "stats.json", json.dumps(totals.to_json(), indent=1) + "\n")
        shutil.rmtree(self.path / "pending", ignore_errors=True)
        (self.path / "pending").mkdir(exist_ok=True)

    @staticmethod
    def _state(totals: Totals) -> dict[str, Any]:
        return {
            "rounds": totals.rounds,
            "cases": totals.cases,
            "past": totals.past,
            "tally": [[row, verdict, count] for (row, verdict), count in totals.tally.items()],
            "keys": dict(totals.keys),
            "corpus": [case.to_json() for case in totals.corpus],
            "covered": _cover_json(totals.covered),
            "findings": [
                [one.key, one.number, one.index, one.case.to_json(), _result_json(one.result)]
                for one in totals.findings.values()
            ],
            "seconds": totals.seconds,
            "worker_seconds": totals.worker_seconds,
            "last_new": totals.last_new,
        }

    def finding_path(self, found: Found) -> Path:
        """Where a finding's case lies."""
        return finding_path(self.path, found)

    # ---- batches of the round under way ------------------------------------------------------------------------------

    def _pending(self, batch: Batch | BatchResult) -> Path:
        return self.path / "pending" / f"{batch.number}-{batch.first}-{batch.count}.json"

    def keep(self, result: BatchResult) -> None:
        """A batch is done, its round is not."""
        write_whole(self._pending(result), json.dumps(batch_json(result)) + "\n")

    def kept(self, batch: Batch) -> BatchResult | None:
        """The result of a batch that was done before the campaign was stopped."""
        path = self._pending(batch)
        if not path.is_file():
            return None
        return batch_from(json.loads(path.read_text(encoding="utf-8")))
