"""The saved image of A: what of memory is safe to save, the file, its marks; files but no engine."""
