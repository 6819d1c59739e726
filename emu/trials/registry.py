"""All trials by name."""

from __future__ import annotations

from functools import partial

from emu.kexec.arch import Arch
from emu.trials import copying, exceptions, leaving, lists, purgatory, returning
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
    "purgatory silent": purgatory.purgatory_silent,
    "purgatory numbers": purgatory.purgatory_numbers,
    "purgatory again": purgatory.purgatory_again,
    "purgatory regions": purgatory.purgatory_regions,
    "purgatory mismatch": purgatory.purgatory_mismatch,
    "copied": copying.copied,
    "copied entries": copying.copied_entries,
    **{f"list {name}, copy": partial(lists.shape, name=name, exchange=False) for name in lists.SHAPES},
    "unchanged code": returning.unchanged_code,
    "linked elsewhere": returning.linked_elsewhere,
}
_LONG_ONLY: dict[str, Body] = {
    "caches": leaving.caches,
    "breakpoint": exceptions.breakpoint_returns,
    "exceptions": exceptions.every_exception,
    "early exception": exceptions.early_exception,
    "late exception": exceptions.late_exception,
}
SHIFTED = (0x40, 0x800, 0x801)
"""Bytes of the control page before the stub, which may begin anywhere."""


PAGING = ("preserve", "plain", "spoiled", "restores", "entries", "copied", "early exception", "purgatory preserve")
"""What other page tables, with the same source, could make different."""


def all_trials() -> dict[str, Trial]:
    """Every trial, the quick and general ones first; names are ``what arch``."""
    found: list[Trial] = []
    for arch in (Arch.X86_64, Arch.I386, Arch.X86_64_LA57, Arch.I386_PAE):
        bodies = _EVERYWHERE | (_LONG_ONLY if arch.bits == 64 else {})
        only = PAGING if arch in (Arch.X86_64_LA57, Arch.I386_PAE) else bodies
        found += [Trial(f"{name} {arch}", arch, bodies[name]) for name in only if name in bodies]
        if arch is Arch.X86_64:
            found += [Trial(f"shifted by {by:#x} {arch}", arch, returning.spoiled, by) for by in SHIFTED]
    return {trial.name: trial for trial in found}
