"""The card: its runtime library, buffers, models, and a step as runtime calls. The only room that calls the runtime."""

from .model_loader import Model, open_model

__all__ = ["Model", "open_model"]
