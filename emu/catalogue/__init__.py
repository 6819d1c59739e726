"""The catalogue of known bugs: each made again, and caught by a named test that passes without it."""
