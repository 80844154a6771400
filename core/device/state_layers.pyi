"""Recurrent layers: states of sequences on the card, and passes from one to another; used by Program alone."""

FIRST_FREE_SLOT: int
"""Slots below are the program's own: zeros, which a text begins with, and one for states that nobody wants."""
