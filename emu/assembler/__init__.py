"""AT&T sources and object files in, flat images with symbols and source lines out."""

from emu.assembler.disassembly import Instruction, decode_one, disassemble
from emu.assembler.image import Image, Line
from emu.assembler.listing import asm_report, listing
from emu.assembler.object_file import load_object
from emu.assembler.program import assemble, assemble_text, load_program

__all__ = [
    "Image",
    "Instruction",
    "Line",
    "asm_report",
    "assemble",
    "assemble_text",
    "decode_one",
    "disassemble",
    "listing",
    "load_object",
    "load_program",
]
