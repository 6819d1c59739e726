"""One 8259A interrupt controller as a frozen value: requests, priorities, and its command words.

Source: Intel 8259A data sheet (order number 231468).  Not modelled: the MCS-80/85 vectoring mode and the
buffered-mode pins.  INT follows the requests: a line that drops before the acknowledge takes INT down.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

LEVELS = 8
SPURIOUS_LEVEL = 7

ICW1 = 0x10
ICW1_IC4 = 0x01
ICW1_SNGL = 0x02
ICW1_LTIM = 0x08
ICW4_AEOI = 0x02
ICW4_SFNM = 0x10
OCW3 = 0x08
OCW3_RIS = 0x01
OCW3_RR = 0x02
OCW3_POLL = 0x04
OCW3_SMM = 0x20
OCW3_ESMM = 0x40
OCW2_EOI = 0x20
OCW2_SPECIFIC = 0x40
OCW2_ROTATE = 0x80
POLL_PENDING = 0x80


@dataclass(frozen=True, slots=True)
class Chip:
    """The registers of one 8259A.

    ``lines`` are the input levels now; ``irr``, ``isr``, ``imr`` the request, in-service and mask registers;
    ``lowest`` the level of lowest priority; ``expects`` the number of the ICW that the data port takes next,
    0 when it takes OCW1.
    """

    base: int
    lines: int = 0
    irr: int = 0
    isr: int = 0
    imr: int = 0xFF
    lowest: int = LEVELS - 1
    expects: int = 0
    icw1: int = 0
    cascade: int = 0
    level_triggered: bool = False
    auto_eoi: bool = False
    rotate_on_auto_eoi: bool = False
    special_mask: bool = False
    special_fully_nested: bool = False
    reads_isr: bool = False
    poll: bool = False

    def with_line(self, level: int, high: bool) -> Chip:
        """Input ``level`` goes high or low.

        A low line withdraws its request in both trigger modes; a rising edge, or in level mode a high line,
        makes one.
        """
        bit = 1 << level
        if not high:
            return replace(self, lines=self.lines & ~bit, irr=self.irr & ~bit)
        rises = not self.lines & bit
        requests = self.irr | bit if rises or self.level_triggered else self.irr
        return replace(self, lines=self.lines | bit, irr=requests)

    def _first(self, levels: int) -> int | None:
        """The level of highest priority among ``levels``, as its distance from the highest priority of all."""
        for rank in range(LEVELS):
            if levels >> (self.lowest + 1 + rank) % LEVELS & 1:
                return rank
        return None

    def _level(self, rank: int) -> int:
        return (self.lowest + 1 + rank) % LEVELS

    def pending(self, cascaded: int = 0) -> int | None:
        """The level for which INT is up, or None.

        ``cascaded`` has a bit for each input that is another 8259A: in special fully nested mode those do
        not block themselves.
        """
        request = self._first(self.irr & ~self.imr)
        if request is None:
            return None
        blocking = self.isr
        if self.special_mask:
            blocking &= ~self.imr
        if self.special_fully_nested:
            blocking &= ~cascaded
        service = self._first(blocking)
        return self._level(request) if service is None or request < service else None

    def acknowledged(self, level: int) -> Chip:
        """The INTA cycle for ``level``: it goes in service, unless the end of interrupt is automatic."""
        bit = 1 << level
        irr = self.irr if self.level_triggered else self.irr & ~bit
        if not self.auto_eoi:
            return replace(self, irr=irr, isr=self.isr | bit)
        return replace(self, irr=irr, lowest=level if self.rotate_on_auto_eoi else self.lowest)

    def with_command(self, value: int) -> Chip:
        """A write to the command port (A0=0): ICW1, OCW2 or OCW3."""
        if value & ICW1:
            return self._initialised(value)
        if value & OCW3:
            return self._ocw3(value)
        return self._ocw2(value)

    def _initialised(self, value: int) -> Chip:
        """ICW1.  Requests from edges are forgotten: a line that stays high must fall and rise to ask again.

        The data sheet does not name the in-service register; it is cleared, as in QEMU and KVM.
        """
        level_triggered = bool(value & ICW1_LTIM)
        return Chip(
            base=self.base,
            lines=self.lines,
            irr=self.lines if level_triggered else 0,
            imr=0,
            expects=2,
            icw1=value,
            cascade=self.cascade,
            level_triggered=level_triggered,
        )

    def _ocw3(self, value: int) -> Chip:
        chip = replace(self, poll=bool(value & OCW3_POLL))
        if value & OCW3_RR:
            chip = replace(chip, reads_isr=bool(value & OCW3_RIS))
        if value & OCW3_ESMM:
            chip = replace(chip, special_mask=bool(value & OCW3_SMM))
        return chip

    def _ocw2(self, value: int) -> Chip:
        rotate, specific, end = value & OCW2_ROTATE, value & OCW2_SPECIFIC, value & OCW2_EOI
        level = value & (LEVELS - 1)
        if not end:
            if rotate and specific:
                return replace(self, lowest=level)
            return self if specific else replace(self, rotate_on_auto_eoi=bool(rotate))
        if not specific:
            in_service = self.isr & ~self.imr if self.special_mask else self.isr
            rank = self._first(in_service)
            if rank is None:
                return self
            level = self._level(rank)
        return replace(self, isr=self.isr & ~(1 << level), lowest=level if rotate else self.lowest)

    def with_data(self, value: int) -> Chip:
        """A write to the data port (A0=1): ICW2 to ICW4 after an ICW1, otherwise OCW1."""
        needs_icw4 = 4 if self.icw1 & ICW1_IC4 else 0
        match self.expects:
            case 2:
                return replace(self, base=value & 0xF8, expects=needs_icw4 if self.icw1 & ICW1_SNGL else 3)
            case 3:
                return replace(self, cascade=value, expects=needs_icw4)
            case 4:
                auto, nested = bool(value & ICW4_AEOI), bool(value & ICW4_SFNM)
                return replace(self, auto_eoi=auto, special_fully_nested=nested, expects=0)
            case _:
                return replace(self, imr=value)

    def status(self) -> int:
        """What the command port reads: IRR, or ISR when OCW3 chose it."""
        return self.isr if self.reads_isr else self.irr
