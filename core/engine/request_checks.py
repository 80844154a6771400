"""What a request must be so that it can ever be served."""

from __future__ import annotations

import numpy as np

from ..device.vision_encoder import VisionEncoder
from ..errors import ContextOverflow, RequestError
from ..request import EngineInfo, GenerationRequest, ImageInput
from ..sampling.sampler import check_params
from ..tokenizer.detokenizer import check_stop
from .pass_costs import PassCosts

MIN_DIGEST = 16  # bytes of a picture's digest: equal ones are the same picture


def check_request(request: GenerationRequest, info: EngineInfo, vocab_size: int) -> None:
    """Raises RequestError or ContextOverflow; token ids are below `vocab_size`."""
    if request.dimensions and request.scored:
        raise RequestError("a request asks for an embedding or for logits, not for both", "scored")
    info.check_kind(embeds=bool(request.dimensions))
    if not request.prompt_ids:
        raise RequestError("the prompt is empty: a model needs at least one token to continue", "messages")
    (_check_length if request.generates else _check_text)(request, info)
    for what, tokens in (("prompt", request.prompt_ids), ("prediction", request.prediction)):
        if tokens and (min(tokens) < 0 or max(tokens) >= vocab_size):
            raise RequestError(f"{what} token ids go from 0 to {vocab_size - 1}", what)
    if request.scored and not 0 <= min(request.scored) <= max(request.scored) < info.vocab_size:
        raise RequestError(f"scored token ids go from 0 to {info.vocab_size - 1}", "scored")
    check_params(request.params, info.vocab_size)
    check_stop(request.stop)


def check_images(request: GenerationRequest, encoder: VisionEncoder | None, axes: int, costs: PassCosts) -> None:
    """Raises RequestError where the pictures of a request are not as the model takes them. `axes`: of its positions;
    `costs` know which chunks there are."""
    if encoder is None:
        raise RequestError("This model takes no images: it has no vision encoder.", "messages", "unsupported")
    reach = costs.reach
    if axes > 1 and (reach < 0 or costs.full_chunks):
        text = "This model's images need chunks of any length; this card does not compute them, or --exact forbids it."
        raise RequestError(text, "messages", "unsupported")
    at, length = 0, len(request.prompt_ids)
    for number, image in enumerate(request.images, 1):
        _check_image(image, encoder, f"image {number} of {len(request.images)}", axes)
        if image.start < at:
            text = f"image {number} begins at token {image.start}, the one before it ends at {at}: they overlap"
            raise RequestError(text, "messages")
        at = image.start + image.num_tokens
    if at >= length:
        text = f"the prompt ends with an image, at token {at} of {length}: a model needs text after it to answer"
        raise RequestError(text, "messages")
    if axes > 1 and at > reach + 1:
        raise ContextOverflow(
            f"the images of the prompt reach to its token {at}; this model takes them up to token {reach + 1}: send"
            " fewer images, or put them first"
        )


def _check_image(image: ImageInput, encoder: VisionEncoder, name: str, axes: int) -> None:
    takes, pixels = encoder.input, image.pixels
    shape = pixels.shape[1:] if pixels.shape[:1] == (1,) and len(pixels.shape) > len(takes.shape) else pixels.shape
    if pixels.dtype != takes.dtype or shape != takes.shape:
        raise RequestError(
            f"{name}: pixels {list(pixels.shape)} of {pixels.dtype}; the vision encoder takes {list(takes.shape)} of"
            f" {takes.dtype}",
            "messages",
        )
    if pixels.dtype.kind == "f" and not np.isfinite(pixels).all():
        raise RequestError(f"{name}: pixels that are no numbers", "messages")
    rows, columns = image.grid
    if image.num_tokens != encoder.num_tokens or min(rows, columns) < 1:
        text = f"{name}: {image.num_tokens} tokens as {rows} x {columns}; the vision encoder gives {encoder.num_tokens}"
        raise RequestError(text, "messages")
    if axes > 1 and rows * columns != image.num_tokens:
        raise RequestError(f"{name}: a grid of {rows} x {columns} is not one of {image.num_tokens} tokens", "messages")
    if image.start < 0 or len(image.digest) < MIN_DIGEST:
        text = f"{name}: start {image.start}, a digest of {len(image.digest)} bytes; at least 0 and {MIN_DIGEST}"
        raise RequestError(text, "messages")


def _check_length(request: GenerationRequest, info: EngineInfo) -> None:
    num_prompt, context = len(request.prompt_ids), info.context_length
    if num_prompt >= context:
        raise ContextOverflow(
            f"the prompt has {num_prompt} tokens, the model's context holds {context} with the answer; shorten the"
            " prompt"
        )
    if request.max_tokens < 1:
        raise RequestError(f"max_tokens is {request.max_tokens}; an answer has at least one token", "max_tokens")
    if num_prompt + request.max_tokens > context:
        raise ContextOverflow(
            f"the prompt has {num_prompt} tokens and {request.max_tokens} are asked for, the model's context holds"
            f" {context}; ask for at most {context - num_prompt} or shorten the prompt",
            "max_tokens",
        )


def _check_text(request: GenerationRequest, info: EngineInfo) -> None:
    if request.dimensions and not 0 < request.dimensions <= info.embedding_size:
        text = f"an embedding has 1 to {info.embedding_size} values, not {request.dimensions}"
        raise RequestError(text, "dimensions")
    if len(request.prompt_ids) > info.context_length:
        raise ContextOverflow(
            f"the text has {len(request.prompt_ids)} tokens, the model's context holds {info.context_length}; shorten"
            " it"
        )
