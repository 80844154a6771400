"""`axpress doctor --probe`: experiments on a card that answer what nobody has published, from harmless to risky.

`battery` runs them, one child process each, and saves the report after each; the other files are the experiments.
"""
