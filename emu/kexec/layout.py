"""The numbers that the loader, the stubs and the kernels share: one definition, in Python.

Assembly gets them through the files that :mod:`emu.kexec.constants` writes.  Offsets are in bytes from
the start of the block that the class is named after; every multi-byte field is little endian.
"""

from __future__ import annotations

from enum import IntEnum, IntFlag


class Ind(IntFlag):
    """Flag bits of a kimage entry (Linux include/linux/kexec.h); the page address is the rest of the word."""

    DESTINATION = 1
    INDIRECTION = 2
    DONE = 4
    SOURCE = 8


class RelocateFlag(IntFlag):
    """The flag word of relocate_new_kernel: rcx on x86_64 (Linux arch/x86/include/asm/kexec.h), on i386 the fifth
    argument, which the kernel calls preserve_context.

    SWAP and COPY are ours: exchange pages although no context is preserved, copy them although one is.
    """

    PRESERVE_CONTEXT = 1
    CACHE_INCOHERENT = 2
    SWAP = 4
    COPY = 8


class LoadFlag(IntFlag):
    """The low half of the flags of kexec_load(2), and KJUMP, ours."""

    ON_CRASH = 1
    PRESERVE_CONTEXT = 2
    KJUMP = 0x100


class ElfMachine(IntEnum):
    """ELF machine numbers, as kexec_load(2) takes them in the high half of its flags and the jump page in ``arch``."""

    DEFAULT = 0
    I386 = 3
    X86_64 = 62


class KexecParams(IntEnum):
    """Offsets in the parameter block of A, which LOAD fills, and of C, which RESTORE fills; every field but ``array``
    is 8 bytes.
    """

    STATUS = 0x00
    ENTRY_VA = 0x08
    HEAD = 0x10
    PA_CONTROL = 0x18
    START = 0x20
    FLAGS = 0x28
    PAGE_LIST = 0x30
    HAS_PAE = 0x38
    JUMP_PAGE = 0x40
    JUMP_PAGE_VA = 0x48
    PAGES = 0x50
    SLOT_VA = 0x58
    ARRAY = 0x60
    COOKIE = 0x70
    RESERVED_START = 0x78
    RESERVED_SIZE = 0x80
    SIZE = 0x88


class PageList(IntEnum):
    """Indices (dwords) in the array that i386 relocate_new_kernel takes as ``page_list`` (kernel's names)."""

    PA_CONTROL_PAGE = 0
    VA_CONTROL_PAGE = 1
    PA_PGD = 2
    PA_SWAP_PAGE = 3
    PAGES_NR = 4


class ControlData(IntEnum):
    """Offsets in the i386 control page of the saved context and what the loader and the stub keep there."""

    ESP = 0x800
    CR0 = 0x804
    CR3 = 0x808
    CR4 = 0x80C
    CP_VA_CONTROL_PAGE = 0x810
    CP_PA_PGD = 0x814
    CP_PA_SWAP_PAGE = 0x818
    CP_PA_BACKUP_PAGES_MAP = 0x81C
    EFER = 0x820
    GDTR = 0x828
    CP_PA_INVERSE_MAP = 0x830
    END = 0x834


class BootParams(IntEnum):
    """Offsets in the zero page (Linux Documentation/arch/x86/boot.rst)."""

    E820_ENTRIES = 0x1E8
    SETUP_SECTS = 0x1F1
    BOOT_FLAG = 0x1FE
    JUMP = 0x200
    HEADER_MAGIC = 0x202
    VERSION = 0x206
    TYPE_OF_LOADER = 0x210
    LOADFLAGS = 0x211
    CODE32_START = 0x214
    RAMDISK_IMAGE = 0x218
    RAMDISK_SIZE = 0x21C
    CMD_LINE_PTR = 0x228
    KERNEL_ALIGNMENT = 0x230
    XLOADFLAGS = 0x236
    CMDLINE_SIZE = 0x238
    E820_TABLE = 0x2D0


class HostRequest(IntEnum):
    """What a kernel asks of the harness through the host request port."""

    LOAD = 1
    AWAKE = 2
    SAVE = 3
    BACK = 4
    PARSED = 5
    INTACT = 6
    POWER_OFF = 7
    RESTORE = 8


class Parsed(IntEnum):
    """Offsets of the qwords at a kernel's symbol ``parsed``: what its command-line parser found."""

    PFN = 0x00
    START = 0x08
    SIZE = 0x10
    SEED = 0x18
    UNKNOWN = 0x20
    RESUME = 0x28
    SAVED = 0x30
    SLOT = 0x38
    ELFCOREHDR = 0x40
    BACK_ENTRY = 0x48
    ROUNDS = 0x50
    RELOADS = 0x58
    WORDS = 0x60
    BYTES = 0x68


class ParsedWord(IntFlag):
    """Bits of the qword ``WORDS`` at ``parsed``: words without a value that stand on the command line."""

    RET = 1
    POWEROFF = 2
    SAVE = 4


class PostCode(IntEnum):
    """What our code says on the POST port."""

    SUM_MISMATCH = 0xE1


class CookieKind(IntEnum):
    """The second dword of the cookie before each entry."""

    AFTER_RESUME = 1
    AFTER_IMAGE_SAVE = 2
    RESUME_SLOT = 3


class Transfer(IntEnum):
    """Bits 0-1 of the jump page's ``mode``: what happens to the memory that A and B both use."""

    RESERVED = 1
    COPY = 2
    SWAP = 3


COOKIE_MAGIC = 0x504D4A4B
COOKIE_SIZE = 8
JUMP_PAGE_MAGIC = b"KJUMPPG1"
JUMP_PAGE_VERSION = 1
MODE_PAE = 4
MODE_LA57 = 8

PURGATORY_REGIONS = 16
BACK_ENTRY_ROOM = 64

CONTROL_CODE_MAX_SIZE = 2048
SEGMENT_MAX = 16

HEADER_MAGIC = 0x53726448
BOOT_VERSION = 0x020C
LOADER_TYPE = 0xD0
BOOT_CS = 0x10
BOOT_DS = 0x18
E820_ENTRY_SIZE = 20
E820_MAX_ENTRIES = 128
COMMAND_LINE_SIZE = 2048

KERNEL_BASE = 0x1000000
ENTRY64_OFFSET = 0x200
BOOT_PARAMS_ADDRESS = 0x90000
COMMAND_LINE_ADDRESS = 0x91000
BOOT_GDT_ADDRESS = 0x8000
BOOT_TABLES_ADDRESS = 0x80000
BOOT_STACK_TOP = 0x8FFF0

X86_64_TEXT_BASE = 0xFFFFFFFF80000000
X86_64_DIRECT_BASE = 0xFFFF888000000000
I386_BASE = 0xC0000000
