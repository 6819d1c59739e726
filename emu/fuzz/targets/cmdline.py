"""Target ``cmdline``: command lines, read by the guest's parser in assembly and by ours."""

from __future__ import annotations

from collections.abc import Sequence

from emu.errors import BadCommandLine
from emu.fuzz.case import Case
from emu.fuzz.fields import Blob, neutral, noise_field
from emu.fuzz.target import Target
from emu.fuzz.trip import LIMIT, Trip
from emu.fuzz.verdict import Result, Verdict
from emu.fuzz.window import RETURN
from emu.fuzz.world import TripWorld
from emu.journey.scene import Scene
from emu.kexec.cmdline import GuestResults, ParsedCommandLine, parse_command_line
from emu.kexec.layout import COMMAND_LINE_SIZE, Parsed

AGREED, MALFORMED = "well formed", "malformed"
_OPTIONS = (
    "kexec_jump jump_buf_pfn seed rounds elfcorehdr kexec_jump_resume kexec_jump_saved kexec_jump_slot "
    "kexec_jump_back_entry quiet ret poweroff save"
)
_VALUES = (
    "0x 0 16M @16M 2M@16M 1G 64K ,high ,low ,cma 0-:64M 128M-256M:8M 64M-:16M, 0x7fffffffffffffff 0xffffffffffffffff "
    "18446744073709551616 017 99999999999999999999 E P T k 0x93000 0x1000040"
)
_TOKENS = (
    *(option.encode() + b"=" for option in _OPTIONS.split()),
    *(b" " + option.encode() + b" " for option in _OPTIONS.split()),
    *(value.encode() for value in _VALUES.split()),
    *(b' "' + word for word in (b"seed=7", b"rounds=3", b"ret", b"save")),
    *(bytes([byte]) for byte in b' \t\v\f\r\n"=,@-:\xa0\xff'),
)


class CmdlineWorld(TripWorld):
    """Kernel B's parser, called as a routine on a line of our making."""

    def __init__(self, scene: Scene) -> None:
        super().__init__(scene)
        trip = self.trip(RETURN)
        line = trip.window.loaded.b_command_line.encode("latin-1")
        self._b = trip.window.journey.kernel_b.symbols
        self._word = scene.arch.word
        self._total = trip.window.loaded.b_map.total_ram
        self._seed = line
        self.spec = (Blob("line", b"", 0, COMMAND_LINE_SIZE - 1, (*_TOKENS, line)), noise_field(self._word))
        self.rows = (AGREED, MALFORMED)

    def seeds(self) -> Sequence[Case]:
        """The journey's own line, and one with everything on it."""
        both = b'kexec_jump=128M-256M:8M,256M-:16M@16M jump_buf_pfn=0x702 seed=7 ret "a b"=c'
        plain = neutral("cmdline", self.spec)
        return [plain.with_value("line", line) for line in (self._seed, both, b"")]

    def put(self, case: Case) -> tuple[Trip, bool]:
        """Reset, lay the line down, and call the parser; it returns to where a refusal would be."""
        trip = self.trip(RETURN)
        stage = trip.stage
        stage.reset()
        line = case.blob("line").split(b"\0")[0]
        stage.write(self._b["command_line"], line + b"\0")
        stage.write(self._b["parsed"], bytes(Parsed.BYTES))
        sp = self._b["stack_top"] - 4 * self._word
        stage.write(sp, trip.refusals[0].to_bytes(self._word, "little"))
        trip.set_noise(case.blob("registers"))
        stage.set_registers({"rsp": sp})
        stage.set_state({"rip": self._b["parse_command_line"]})
        return trip, False

    def run(self, case: Case) -> Result:
        """Parse it twice."""
        trip, _ = self.put(case)
        ours = self._ours(case.blob("line").split(b"\0")[0])
        ended = trip.stage.run(10 * LIMIT, 10 * LIMIT)
        row = MALFORMED if ours is None else AGREED
        if ended.arrived != trip.refusals[0]:
            return trip.result(Verdict.LOST, ended, row)
        strays = trip.stage.pages.strays()
        if strays:
            return trip.result(Verdict.OWNER, ended, row, "store outside B")
        if ours is None:
            return trip.result(Verdict.REFUSED, ended, row, "malformed", past=False)
        wrong = self._differs(trip, ours)
        if wrong:
            return trip.result(Verdict.MODEL, ended, row, wrong.split(":")[0], wrong)
        return trip.result(Verdict.COMPLETED, ended, row, "agreed")

    def _ours(self, line: bytes) -> GuestResults | None:
        try:
            parsed: ParsedCommandLine = parse_command_line(line.decode("latin-1"))
            return parsed.guest_results(self._total)
        except BadCommandLine:
            return None

    def _differs(self, trip: Trip, ours: GuestResults) -> str:
        theirs = GuestResults.unpack(trip.stage.machine.ram.read(self._b["parsed"], Parsed.BYTES))
        names = GuestResults.__slots__
        wrong = [
            f"{name}: guest {guest:#x}, ours {mine:#x}"
            for name, guest, mine in zip(names, theirs.qwords(), ours.qwords(), strict=True)
            if guest != mine
        ]
        return "; ".join(wrong)


TARGET = Target(
    "cmdline",
    "command lines of up to 2047 bytes, by words of the grammar and by bytes",
    "the guest's parser ends, stores nowhere else, and comes to what ours does on every line that is well formed",
    CmdlineWorld,
)
