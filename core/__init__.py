"""Decoding on the card, and sharing its cache: everything below HTTP. ARCHITECTURE.md shows the rooms."""
