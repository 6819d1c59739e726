"""Every error that kjump raises about a person's input or about itself.

What a *guest* does wrong (a page fault, a triple fault, a store to somebody else's page) is data, not
an exception: see :mod:`emu.machine.events`.  The classes here are for input that cannot be used and for
a tool that cannot work.  Each carries what is wrong, where, and what to do about it.
"""

from __future__ import annotations

EXIT_FINDINGS = 1
EXIT_BAD_INPUT = 2
EXIT_TOOL = 3
EXIT_INTERRUPTED = 130


class KjumpError(Exception):
    """Base of all errors: ``what`` happened, ``where`` (a file position, an option, a range), ``hint`` what to do."""

    exit_status = EXIT_BAD_INPUT

    def __init__(self, what: str, *, where: str = "", hint: str = "") -> None:
        self.what = what
        self.where = where
        self.hint = hint
        text = f"{where}: {what}" if where else what
        super().__init__(f"{text} ({hint})" if hint else text)


class AssemblyError(KjumpError):
    """Raised when a source line cannot be assembled into exactly the instruction that it names."""

    def __init__(self, what: str, *, file: str, line: int, column: int = 1, source: str = "", hint: str = "") -> None:
        self.file = file
        self.line = line
        self.column = column
        self.source = source
        super().__init__(what, where=f"{file}:{line}:{column}", hint=hint)


class ImageError(KjumpError):
    """Raised when a file is not the program image it should be (not an ELF, wrong machine, truncated)."""


class BadCommandLine(KjumpError):  # noqa: N818 - the name that the design gives it
    """Raised when a kernel command line has a malformed value of one of our own options.

    ``column`` counts from 1 within the command line.
    """

    def __init__(self, what: str, *, option: str, column: int, hint: str = "") -> None:
        self.option = option
        self.column = column
        super().__init__(what, where=f"command line, column {column}, {option}", hint=hint)


class LoadError(KjumpError):
    """Raised when kexec_load refuses; ``errno`` is the positive number that the system call would return negated."""

    def __init__(self, what: str, *, errno: int, where: str = "kexec_load", hint: str = "") -> None:
        self.errno = errno
        super().__init__(what, where=where, hint=hint)


class JumpPageError(KjumpError):
    """Raised when a jump page does not hold what it must; ``field`` names the first field that is wrong."""

    def __init__(self, what: str, *, field: str, hint: str = "") -> None:
        self.field = field
        super().__init__(what, where=f"jump page, {field}", hint=hint)


class ImageFileError(KjumpError):
    """Raised when a saved image of A cannot be written, or not be trusted.

    ``block`` is the number of the first bad block, None where no single block is at fault.
    """

    def __init__(self, what: str, *, block: int | None = None, where: str = "", hint: str = "") -> None:
        self.block = block
        super().__init__(what, where=where or ("image" if block is None else f"image block {block}"), hint=hint)


class JourneyError(KjumpError):
    """Raised when a journey description cannot be run as written (unknown key, RAM too small, unknown arch)."""


class DebuggerError(KjumpError):
    """Raised when a debugger command cannot be carried out as typed."""


class EngineError(KjumpError):
    """Raised when the engine does not behave as this version of kjump was calibrated for."""

    exit_status = EXIT_TOOL


class FuzzError(KjumpError):
    """Raised when a case, a campaign folder or a target cannot be used as asked."""
