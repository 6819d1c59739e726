"""Where control goes: checks at the borders between A, the stub and B, and what is said when a run ends early."""

from __future__ import annotations

from typing import TYPE_CHECKING

from emu.journey import linux_stack, registers
from emu.journey.findings import Finding
from emu.journey.outcome import Outcome, finding_at, finding_here
from emu.kexec.layout import COOKIE_MAGIC, COOKIE_SIZE, CookieKind
from emu.machine import events as ev
from emu.units import PAGE_MASK, PAGE_SIZE, show_phys
from emu.x86.exceptions import vector_name

if TYPE_CHECKING:
    from emu.journey.journey import Journey
    from emu.journey.movement import Movement
    from emu.machine.machine import Machine


def arrival(journey: Journey, wanted: int, actual: int) -> Outcome:
    """Control left the stub for the address that it was told to go to."""
    name = "arrival"
    if wanted == actual:
        return Outcome(name)
    symbols = journey.symbols
    finding = finding_here(
        journey,
        "wrong entry",
        f"control goes to {wanted:#x} {symbols.place(wanted).symbol}",
        f"control went to {actual:#x} {symbols.place(actual).symbol}",
        [
            *([f"it is {actual - wanted:+#x} from where it should be"] if abs(actual - wanted) < PAGE_SIZE else []),
            *journey.peer_notes,
        ],
    )
    return Outcome(name, (finding,))


def just_delivered(machine: Machine) -> ev.Fault | ev.Interrupt | None:
    """The exception or interrupt whose handler is at its first instruction now."""
    for event in reversed(machine.events):
        if event.tick != machine.count.ticks:
            return None
        if isinstance(event, ev.Fault | ev.Interrupt):
            return event
    return None


def exception(journey: Journey, event: ev.Fault | ev.Interrupt) -> Outcome:
    """An exception or interrupt was taken while the stub ran: ``event``, the first of them."""
    name = "exceptions"
    what = vector_name(event.vector)
    handler = journey.symbols.place(journey.machine.cpu.pc)
    reason = getattr(event, "reason", "")
    return Outcome(
        name,
        (
            finding_at(
                journey,
                event,
                "exception",
                "no exception or interrupt while the stub runs",
                f"{what} at {journey.symbols.place(event.pc)}, taken by {handler.symbol}",
                because=[*([reason] if reason else []), *journey.peer_notes],
            ),
        ),
    )


def peer_entry(journey: Journey, move: Movement, start: int) -> Outcome:
    """The processor and the stack at the peer's first instruction, at ``start``, are as the stub's convention says."""
    name = "entry state"
    machine, loaded = journey.machine, journey.require_loaded()
    arch, image = journey.scene.arch, loaded.image
    state = machine.cpu.registers()
    wrong = registers.entry_state(arch, state)
    swap = int(image.swap_page or 0)
    sp = state["rsp"]
    if loaded.linux is not None:
        wrong.extend(linux_stack.entry_stack(journey, loaded.linux, sp))
    elif sp != swap + PAGE_SIZE - 2 * arch.word:
        wrong.append(f"stack pointer {sp:#x}, not two words below the top of the swap page {show_phys(swap)}")
    else:
        back = machine.ram.read_int(sp, arch.word)
        slot = machine.ram.read_int(sp + arch.word, arch.word)
        if back & ~PAGE_MASK != int(image.control_page):
            wrong.append(f"return address {back:#x} is not in the control page {show_phys(image.control_page)}")
        if slot != start:
            wrong.append(f"word above the return address is {slot:#x}, not the entry {start:#x} (like B-01)")
        if start != loaded.start and loaded.slot:
            wrong.extend(_slot_cookie(journey, start))
    findings = [finding_here(journey, name, "the stub's convention at the peer's entry", line) for line in wrong]
    stored = machine.loop.last_string
    if stored is not None and move.tick <= stored[0] and machine.hazards.serial <= stored[0]:
        last = journey.symbols.place(machine.hazards.serial_pc)
        findings.append(
            finding_here(
                journey,
                "unserialised code",
                "a serialising instruction (a CR3 load) between the last moved page and the peer's first instruction",
                f"the last page was stored by {journey.symbols.place(stored[1])}, and nothing serialised after it",
                [
                    (
                        f"no CR3 load since N {machine.hazards.serial_position}: the last serialising instruction was "
                        f"{last}; `mov %rax,%cr3` is missing between swap_pages and the entry of the peer"
                    )
                ],
                catalogue="B-39",
            )
        )
    return Outcome(name, tuple(findings))


def _slot_cookie(journey: Journey, start: int) -> list[str]:
    """B's own entry, which it left in the slot, bears its cookie."""
    raw = journey.machine.ram.read(start - COOKIE_SIZE, COOKIE_SIZE)
    if (
        int.from_bytes(raw[:4], "little") == COOKIE_MAGIC
        and int.from_bytes(raw[4:], "little") == CookieKind.RESUME_SLOT
    ):
        return []
    return [f"the cookie before B's entry {start:#x} is {raw.hex(' ')}"]


def reentry(journey: Journey, kind: CookieKind) -> Outcome:
    """A was entered at the entry that bears the cookie ``kind``, or by its back entry, in the re-entry mode."""
    name = "re-entry"
    machine, loaded = journey.machine, journey.require_loaded()
    pc = machine.cpu.pc
    state = machine.cpu.registers()
    wrong = registers.reentry_state(journey.scene.arch, state)
    if loaded.jump_entry is not None:
        symbol = "after_resume" if kind is CookieKind.AFTER_RESUME else "after_image_save"
        wanted = loaded.jump_entry.symbols[symbol]
        raw = machine.ram.read(pc - COOKIE_SIZE, COOKIE_SIZE)
        if pc != wanted:
            wrong.append(f"entered at {pc:#x}, not at {symbol} {wanted:#x}")
        elif int.from_bytes(raw[4:], "little") != kind:
            wrong.append(f"the cookie before {symbol} is {raw.hex(' ')}")
    elif loaded.linux is None:
        back, word = journey.progress.back_entry, journey.scene.arch.word
        if pc != back:
            wrong.append(f"entered at {pc:#x}, not at the return address {back:#x} that B was given")
        top = machine.ram.read_int(state["rsp"] & (1 << 8 * word) - 1, word)
        if kind is CookieKind.AFTER_RESUME and top:
            wrong.append(f"the word on the stack of a C that does not come back is {top:#x}, not 0")
    return Outcome(name, tuple(finding_here(journey, name, "the re-entry convention", line) for line in wrong))


def quiet_devices(journey: Journey) -> Outcome:
    """No device goes on writing into memory that changes hands."""
    name = "devices"
    board = journey.machine.board
    if not board.busmaster.running:
        return Outcome(name)
    transfer = board.busmaster.state.transfer
    ring = transfer.ring if transfer is not None else 0
    who = journey.transition.source
    because = [f"the bus master writes into {show_phys(ring)}, which kernel {who} gave it and did not take back"]
    return Outcome(
        name,
        (finding_here(journey, "busy device", "every bus master is stopped before the jump", because[0], because),),
    )


def guest_failure(journey: Journey, outcome: ev.Outcome) -> Finding:
    """The run ended where it should have gone on."""
    faults = [event for event in journey.machine.events if isinstance(event, ev.Fault)][-3:]
    because = [
        f"N {fault.position}: {vector_name(fault.vector)}"
        + (f"({fault.error_code:#x})" if fault.error_code is not None else "")
        + (f" cr2={fault.cr2:#x}" if fault.vector == 14 else "")
        + f" at {journey.symbols.place(fault.pc)}" + (f": {fault.reason}" if fault.reason else "")
        for fault in faults
        if fault.tick >= journey.machine.count.ticks - 5_000_000
    ]  # fmt: skip
    lines = [event for event in journey.machine.events if isinstance(event, ev.ConsoleLine)]
    because += [f"console: {line.text}" for line in lines[-3:]]
    match outcome:
        case ev.TripleFault(pc=pc, chain=chain, mode=mode):
            because = [f"{vector_name(one.vector)} not delivered: {one.why}" for one in chain] + because
            actual = f"triple fault at {journey.symbols.place(pc)} in {mode}"
        case ev.Exited(status=status):
            actual = f"a guest ended the run with status {status}"
        case ev.Halted(pc=pc):
            actual = f"halted for ever at {journey.symbols.place(pc)}"
        case ev.StepLimit(ticks=ticks):
            actual = f"no end after {ticks:,} ticks, at {journey.symbols.place(journey.machine.cpu.pc)}"
        case ev.NotModelled(what=what):
            actual = f"{what}: not modelled"
        case _:
            actual = f"unexpected: {outcome}"
    because += [f"left by the peer: {note}" for note in journey.peer_notes]
    return finding_here(journey, "guest failed", "the journey goes on", actual, because)
