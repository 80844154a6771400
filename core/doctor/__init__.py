"""`axpress doctor`: what a person would check by hand before a model is served on a card, and what to do about it.

Host files are read through `host.Host`, so that tests can build a machine; the card is only touched by child
processes with deadlines (`child`), because a wedged runtime never returns.
"""
