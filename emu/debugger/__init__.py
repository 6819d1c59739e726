"""Stepping through a jump, forwards and backwards."""
