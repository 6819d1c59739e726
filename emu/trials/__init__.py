"""Trials: named tests of the stubs, each a few milliseconds, for whoever runs many of them (mutants, known bugs)."""
