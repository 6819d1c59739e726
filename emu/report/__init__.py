"""Showing results: the screen, the JSON document, the trace file."""
