"""The third use of the bench: look for the input with which a jump goes silently wrong."""
