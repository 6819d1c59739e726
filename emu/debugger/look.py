"""Everything that shows state, by the name of its command; the views themselves live by topic beside this."""

from emu.debugger.backtrace import bt
from emu.debugger.culprit import who_changed, who_wrote
from emu.debugger.descriptors import gdt, idt, ldt, tss
from emu.debugger.examine import examine, following
from emu.debugger.info import cmdline, console, devices, display, e820, events, owners, transitions, where
from emu.debugger.kimage import jumpbuf, kimage
from emu.debugger.memory_view import diff, owner, pattern, search
from emu.debugger.places import disassemble, routine
from emu.debugger.postmortem import post_mortem
from emu.debugger.registers import creg, fpu, msrs, regs, sreg
from emu.debugger.translations import maps, p2v, v2p, walk

__all__ = [
    "bt",
    "cmdline",
    "console",
    "creg",
    "devices",
    "diff",
    "disassemble",
    "display",
    "e820",
    "events",
    "examine",
    "following",
    "fpu",
    "gdt",
    "idt",
    "jumpbuf",
    "kimage",
    "ldt",
    "maps",
    "msrs",
    "owner",
    "owners",
    "p2v",
    "pattern",
    "post_mortem",
    "regs",
    "routine",
    "search",
    "sreg",
    "transitions",
    "tss",
    "v2p",
    "walk",
    "where",
    "who_changed",
    "who_wrote",
]
