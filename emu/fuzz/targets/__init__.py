"""What can be fuzzed: each target says what an input is, what the design allows, and runs one case."""
