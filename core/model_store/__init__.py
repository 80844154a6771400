"""Models by name on disk: the catalogue, the models directory, and what fetches into it."""

from .catalogue import DEFAULT, Entry, find_entry, known_names
from .pull import Plan, pull
from .store import ModelStore, StoredModel

__all__ = ["DEFAULT", "Entry", "ModelStore", "Plan", "StoredModel", "find_entry", "known_names", "pull"]
