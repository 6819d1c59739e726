"""The gdb remote serial protocol: a recorded scene as a target that gdb and IDEs attach to."""

from emu.debugger.gdb.server import parse_endpoint, serve

__all__ = ["parse_endpoint", "serve"]
