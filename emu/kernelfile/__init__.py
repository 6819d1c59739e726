"""Kernels as files: bzImage and vmlinux, what they are packed with, and the relocate_kernel inside."""

from emu.kernelfile.forms import StubForm
from emu.kernelfile.info import kernel_info, kernel_text
from emu.kernelfile.stub_of import KernelStub, find_stub, is_kernel

__all__ = ["KernelStub", "StubForm", "find_stub", "is_kernel", "kernel_info", "kernel_text"]
