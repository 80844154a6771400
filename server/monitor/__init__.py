"""The server's state, for monitors and for the page."""
