"""AT&T sources and object files in, flat images with symbols and source lines out."""

from emu.assembler.image import Image, Line
from emu.assembler.program import assemble, assemble_text

__all__ = ["Image", "Line", "assemble", "assemble_text"]
