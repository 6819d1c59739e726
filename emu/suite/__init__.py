"""The regression suite of assembly: claim files, the world in which they run, and what must have stayed as it was."""
