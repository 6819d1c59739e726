"""Kernels in the machine: scenes, transitions and what is checked at each."""
