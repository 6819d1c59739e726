"""All trials by name."""

from __future__ import annotations

from functools import partial

from emu.kexec.arch import Arch
from emu.trials import exceptions, leaving, lists, purgatory, returning
from emu.trials.trial import Body, Trial

_EVERYWHERE: dict[str, Body] = {
    "preserve": leaving.preserve,
    "plain": leaving.plain,
    "spoiled": returning.spoiled,
    "serialised": leaving.serialised,
    **{f"list {name}": partial(lists.shape, name=name, exchange=True) for name in lists.SHAPES},
    "list long": lists.long_list,
    "slot": returning.slot,
    "again": returning.again,
    "restores": returning.restores,
    "entries": returning.entries,
    "purgatory plain": purgatory.purgatory_plain,
    "purgatory preserve": purgatory.purgatory_preserve,
    "unchanged code": returning.unchanged_code,
    "linked elsewhere": returning.linked_elsewhere,
}
_LONG_ONLY: dict[str, Body] = {
    **{f"list {name}, copy": partial(lists.shape, name=name, exchange=False) for name in lists.SHAPES},
    "caches": leaving.caches,
    "breakpoint": exceptions.breakpoint_returns,
    "exceptions": exceptions.every_exception,
    "early exception": exceptions.early_exception,
}
SHIFTED = 0x40


def all_trials() -> dict[str, Trial]:
    """Every trial, the quick and general ones first; names are ``what arch``."""
    found: list[Trial] = []
    for arch in (Arch.X86_64, Arch.I386, Arch.X86_64_LA57, Arch.I386_PAE):
        bodies = _EVERYWHERE | (_LONG_ONLY if arch.bits == 64 else {})
        found += [Trial(f"{name} {arch}", arch, body) for name, body in bodies.items()]
        if arch.bits == 64:
            found.append(Trial(f"shifted {arch}", arch, returning.spoiled, SHIFTED))
    return {trial.name: trial for trial in found}
