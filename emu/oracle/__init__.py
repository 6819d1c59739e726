"""Other machines as witnesses: one image of a movement, run here, on QEMU and on KVM, and compared."""
