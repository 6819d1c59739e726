"""kexec without an engine: command line, memory map, entry lists, loading, page tables, the jump page."""
