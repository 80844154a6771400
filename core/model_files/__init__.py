"""Model directories, as published or simulated, and what makes simulated ones. Nothing here touches a card."""

from .model_package import ModelPackage, inspect_package, open_package

__all__ = ["ModelPackage", "inspect_package", "open_package"]
