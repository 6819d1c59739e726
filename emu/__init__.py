"""kjump: the bench on which the code of kexec jumps is run, checked and taken apart."""
