"""Property tests are the same every time: fixed examples, and no deadline that a busy machine could miss."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("kjump", derandomize=True, deadline=None, database=None)
settings.load_profile("kjump")
