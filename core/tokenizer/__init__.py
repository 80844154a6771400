"""Text to token ids and back: tokenizer files of every kind, chat templates, stop strings."""

from .tokenizer import Tokenizer

__all__ = ["Tokenizer"]
