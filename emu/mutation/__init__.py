"""Mutants: each small damage to a stub is caught by a test, or provably does nothing."""
