"""A machine that boots an image of the user's: kernels, multiboot programs, flat code and ROMs."""
