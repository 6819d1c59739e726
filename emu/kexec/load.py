"""kexec_load(2) as kernel A carries it out (Linux kernel/kexec.c, kernel/kexec_core.c).

A load that fails changes nothing: not memory, not the free pages, not the image that was loaded before.  (The kernel
frees an earlier crash image before it loads the next; here it stays until the next one is complete.)
"""

from __future__ import annotations

from dataclasses import dataclass
from errno import EADDRNOTAVAIL, EBUSY, EFAULT, EINVAL, EPERM

from emu.errors import LoadError
from emu.kexec.allocator import PagePool
from emu.kexec.arch import Arch
from emu.kexec.crash import load_crash
from emu.kexec.e820 import MemoryMap, Range
from emu.kexec.image import KexecImage
from emu.kexec.layout import SEGMENT_MAX, ElfMachine, LoadFlag, Transfer
from emu.kexec.loading import ImageLoading, JumpWish
from emu.kexec.segments import Segment, check_inside, check_segments, usable_by_jump
from emu.kexec.staged import PhysMemory, Staged
from emu.units import Linear

ARCH_SHIFT = 16
ARCH_MASK = 0xFFFF0000
_KNOWN = LoadFlag.ON_CRASH | LoadFlag.PRESERVE_CONTEXT | LoadFlag.KJUMP


@dataclass(frozen=True, slots=True)
class LoadRequest:
    """The arguments of the system call.

    ``entry`` is the physical address where B starts, ``flags`` has the ELF machine in its high half, and ``segments``
    None stands for an array that cannot be read.  The rest is no argument but the kernel's own doing: ``text``, the
    linear address of relocate_kernel in the text of a classic x86_64 kernel, how many control pages its caller wants,
    and for KJUMP what is done with the memory that both kernels use, and whether there is a jump page (with its list of
    memory that is safe to save) and a page of entry code (with its copy of the stub).
    """

    entry: int
    segments: tuple[Segment, ...] | None
    flags: int = 0
    text: Linear | None = None
    caller_pages: int = 0
    transfer: Transfer = Transfer.SWAP
    jump_page: bool = True
    entry_code: bool = True


@dataclass(slots=True)
class KexecState:
    """What kernel A knows and holds of kexec.

    ``pool`` is its free memory, ``target`` the area that its ``kexec_jump=`` gave, ``crash_region`` that of
    ``crashkernel=``. ``may_load`` is false without CAP_SYS_BOOT or when loading is disabled; ``locked`` is true while
    another load or jump runs.
    """

    arch: Arch
    memory_map: MemoryMap
    pool: PagePool
    target: Range | None = None
    crash_region: Range | None = None
    may_load: bool = True
    locked: bool = False
    image: KexecImage | None = None
    crash_image: KexecImage | None = None


def load(request: LoadRequest, memory: PhysMemory, kernel: KexecState) -> KexecImage | None:
    """Load an image and install it in ``kernel``; None after an unload, which is a request with no segments.

    Raises :class:`LoadError`, by the first check that fails: EPERM, EINVAL (flags, then number of segments, then arch),
    EFAULT (array), EBUSY, EADDRNOTAVAIL (crash entry), the segment checks of :func:`check_segments`, EADDRNOTAVAIL for
    a segment outside crash region or target area, ENOMEM (control page, swap page, page tables), ENOMEM or EFAULT for
    each segment. KJUMP and PRESERVE_CONTEXT are refused together with ON_CRASH, since a crash image has no swap page.
    """
    flags = _check_call(request, kernel)
    if request.segments is None:
        raise LoadError("the segment array cannot be read", errno=EFAULT)
    if kernel.locked:
        raise LoadError("another load is in progress", errno=EBUSY)
    on_crash = bool(flags & LoadFlag.ON_CRASH)
    if not request.segments:
        _install(kernel, None, on_crash=on_crash)
        return None
    staged = Staged(memory)
    before = kernel.pool.snapshot()
    try:
        image = _load_crash(request, kernel, staged) if on_crash else _load_normal(request, flags, kernel, staged)
    except LoadError:
        kernel.pool.restore(before)
        raise
    staged.commit()
    _install(kernel, image, on_crash=on_crash)
    return image


def _check_call(request: LoadRequest, kernel: KexecState) -> LoadFlag:
    """The checks on the arguments themselves; the flags of the low half."""
    if not kernel.may_load:
        raise LoadError("the caller may not load a kernel", errno=EPERM, hint="CAP_SYS_BOOT, kexec_load_disabled")
    low = request.flags & ~ARCH_MASK
    if low & ~int(_KNOWN):
        raise LoadError(f"unknown flags {low & ~int(_KNOWN):#x}", errno=EINVAL)
    flags = LoadFlag(low)
    if flags & LoadFlag.ON_CRASH and flags & (LoadFlag.PRESERVE_CONTEXT | LoadFlag.KJUMP):
        raise LoadError("a crash image has no swap page, so there is no way back from it", errno=EINVAL)
    if request.segments is not None and len(request.segments) > SEGMENT_MAX:
        raise LoadError(f"{len(request.segments)} segments, the most is {SEGMENT_MAX}", errno=EINVAL)
    machine = (request.flags & ARCH_MASK) >> ARCH_SHIFT
    if machine not in {ElfMachine.DEFAULT, kernel.arch.machine}:
        raise LoadError(f"ELF machine {machine} is not that of {kernel.arch}", errno=EINVAL)
    return flags


def _load_normal(request: LoadRequest, flags: LoadFlag, kernel: KexecState, staged: Staged) -> KexecImage:
    segments = request.segments or ()
    check_segments(segments, kernel.arch, kernel.memory_map)
    target = None
    if flags & LoadFlag.KJUMP:
        target = kernel.target
        if target is None:
            raise LoadError("KJUMP needs a target area", errno=EINVAL, hint="give kernel A kexec_jump=size@offset")
        usable = usable_by_jump(kernel.memory_map, target)
        check_inside(segments, usable, "the low region and the target area")
    loading = ImageLoading(kernel.arch, kernel.memory_map, kernel.pool, staged, segments)
    jump = None
    if target is not None:
        jump = JumpWish(target, request.transfer, jump_page=request.jump_page, entry_code=request.entry_code)
    return loading.run(request.entry, flags, jump, text=request.text, caller_pages=request.caller_pages)


def _load_crash(request: LoadRequest, kernel: KexecState, staged: Staged) -> KexecImage:
    region = kernel.crash_region
    if region is None or not region.start <= request.entry < region.end:
        raise LoadError(f"the entry {request.entry:#x} is outside the crash region", errno=EADDRNOTAVAIL)
    segments = request.segments or ()
    check_segments(segments, kernel.arch, kernel.memory_map)
    check_inside(segments, (region,), "the crash region")
    return load_crash(
        arch=kernel.arch,
        memory_map=kernel.memory_map,
        staged=staged,
        segments=segments,
        entry=request.entry,
        region=region,
    )


def _install(kernel: KexecState, image: KexecImage | None, *, on_crash: bool) -> None:
    """Put ``image`` in its slot and free the pages of the one before it; the crash region is never free memory."""
    if on_crash:
        kernel.crash_image = image
        return
    if kernel.image is not None:
        kernel.pool.give_back(sorted(kernel.image.pfns))
    kernel.image = image
