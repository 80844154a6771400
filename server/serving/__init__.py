"""From any dialect's request to the engine and back: the part that all dialects share."""
