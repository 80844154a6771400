"""Pictures for models with eyes: from the bytes of a file to what the card's vision encoder takes, by model family.

`adapter_for` gives what a family needs; its `prepare` decodes within limits and makes the encoder's input, its `expand`
puts the placeholder tokens of each picture into a prompt. Needs Pillow, an extra: `pip install 'axpress[vision]'`."""

from .adapters import KINDS, ImageAdapter, adapter_for
from .decoding import ImageLimits
from .prepared import Detail, EncoderInput, PreparedImage

__all__ = ["KINDS", "Detail", "EncoderInput", "ImageAdapter", "ImageLimits", "PreparedImage", "adapter_for"]
