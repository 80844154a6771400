"""What kind of model a package holds, as its configuration and files say, where that is a kind that is not served.

Names of models say nothing: keys, their values and the files beside the layers do. Shapes tell the rest on the card."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ..errors import PackageError
from . import qwen3_5
from .package_config import PackageConfig, is_no

ADVICE = "which is not supported yet: use a plain text model of the Qwen2.5, Qwen3 or Llama type"

IMAGES = "a model with vision inputs"
SOUND = "a speech model"
EITHER = "a model with inputs beside text (an encoder of images or sound)"
EMBEDDING = "an embedding model of another type than Qwen3-Embedding"
RECURRENT = "a hybrid model with recurrent (linear attention) layers"
PICTURES = "a model that makes images"

VISION_TYPES = ("internvl3", "fastvlm", "smolvlm", "smolvlm2", "locateanything", "qwen3omni")
ENCODER_KEY = re.compile(r"filename_\w*(image|vision|visual|vit|vpm)\w*", re.IGNORECASE)
SOUND_KEY = re.compile(r"filename_\w*(audio|speech|decoder|token2wav|vocoder)\w*|token2wav\w*", re.IGNORECASE)
VISION_CONFIG = re.compile(r"(vision|visual|vit|image)_?\w*config(\..+)?|visual|vision_enabled", re.IGNORECASE)
SOUND_CONFIG = re.compile(r"(audio|speech|thinker|talker|vocoder)_\w*config|audio_enabled", re.IGNORECASE)
EMBEDDING_KEYS = ("embedding", "embedding_type", "EMBEDDING_TYPE", "encoder_axmodels")  # is_embedding: what is served
SOUND_WORDS = {
    *("whisper", "audio", "speech", "sensevoice", "token2wav", "vocoder", "melotts", "kokoro", "tts", "asr", "hift"),
    *("paraformer", "zipformer", "cosyvoice"),
}
VISION_WORDS = {"vit", "vl", "vlm", "vpm", "resampler", "mmproj", "siglip", "clip", "image", "deepstack"}
PICTURE_WORDS = {"unet", "vae", "diffusion", "sdxl"}
SLIDING = "sliding_attention"
PATTERN_KEYS, PATTERN = ("sliding_window_pattern", "_sliding_window_pattern"), 6
OTHER_ARITHMETIC = ("attn_logit_softcapping", "final_logit_softcapping", "use_bidirectional_attention")
CAUSAL = ("ForCausalLM", "LMHeadModel")


def unserved_kind(values: Mapping[str, Any]) -> str | None:
    """What a configuration describes, if that is no language model for text with plain attention; None if it is."""
    found = _by_keys(values, is_hybrid(values.get("model_type")))
    return f"{found[0]} ({found[1]})" if found else attention_kind(values)


def is_hybrid(family: object) -> bool:
    """Whether a family's layers are recurrent but for some: what its checkpoints and compiled layers are called."""
    return family in (qwen3_5.FAMILY, qwen3_5.WITH_VISION)


def refuse_keys(config: PackageConfig, family: str | None = None, has_eyes: bool = False) -> None:
    """Raises PackageError, naming the key, if the configuration describes anything but a language model for text.
    `family`: what the layers are called after; `has_eyes`: the package has a vision encoder that is served."""
    hybrid = is_hybrid(family)
    if found := _by_keys(config.values, hybrid, has_eyes):
        kind = f"{RECURRENT} and vision inputs" if hybrid and found[0].startswith(IMAGES) else found[0]
        raise PackageError(f"{config.path} describes {kind} ({found[1]}), {ADVICE}")


def refuse_files(layers: Iterable[Path], others: Iterable[tuple[Path, str]], has_eyes: bool = False) -> None:
    """The same from the names of files: the layers' and those beside them, each with its name within the package."""
    for path in layers:
        if not has_eyes and "vl" in _words(path.name):
            raise PackageError(f"{path} is a layer of {IMAGES} (_vl_ in its name), {ADVICE}")
    for path, shown in others:
        if (kind := _file_kind(path, shown)) and not (has_eyes and kind in (IMAGES, EITHER)):
            raise PackageError(f"{path} belongs to {kind}, {ADVICE}")


def refuse_attention(config: PackageConfig) -> None:
    """Raises PackageError, naming the key, if layers attend in a way that is not served (windows, shared caches)."""
    for values in _levels(config.values):
        if kind := attention_kind(values):
            raise PackageError(f"{config.path} describes {kind}, {ADVICE}")


def layer_windows(configs: Iterable[PackageConfig], layers: int) -> tuple[int, ...]:
    """Of each layer, how many positions its tokens see, their own included (0: all); empty where no layer has a window.
    The first configuration that tells the layers' types counts. PackageError: another number of layers."""
    for config in configs:
        kinds = layer_types(config.values, layers, config.path)
        if not kinds:
            continue
        if SLIDING not in kinds:
            return ()
        if len(kinds) != layers:
            raise PackageError(f"{config.path} has layer_types of {len(kinds)} layers, the model has {layers}")
        return tuple(int(config.values["sliding_window"]) if kind == SLIDING else 0 for kind in kinds)
    return ()


def recurrent_layers(configs: Iterable[PackageConfig], layers: int, family: str | None) -> tuple[bool, ...]:
    """Of each layer, whether it is recurrent; empty where no layer is. The first configuration that tells counts; what
    is published tells nothing, and its layers take turns as the family's do. PackageError: another number of layers."""
    if not is_hybrid(family):
        return ()
    telling = [config for config in configs if {"layer_types", "full_attention_interval"} & config.values.keys()]
    values, where = (telling[0].values, str(telling[0].path)) if telling else ({}, "")
    return tuple(kind == qwen3_5.LINEAR for kind in qwen3_5.layer_kinds(values, layers, where))


def layer_types(values: Mapping[str, Any], layers: int, where: object) -> list[Any]:
    """Of each layer, "sliding_attention" or "full_attention": as listed; or by the pattern of Gemma 3's older
    configurations: of every so many layers the last sees all. Empty: not told. `where` names the file in errors."""
    if isinstance(types := values.get("layer_types"), list):
        return types
    if values.get("model_type") != "gemma3_text" or is_no(values.get("sliding_window")):
        return []
    pattern = next((values[key] for key in PATTERN_KEYS if key in values), PATTERN)
    if not isinstance(pattern, int) or isinstance(pattern, bool) or pattern < 1:
        raise PackageError(f"{where} has sliding_window_pattern = {pattern!r}, which is no number of layers")
    return [SLIDING if (layer + 1) % pattern else "full_attention" for layer in range(layers)]


def attention_kind(values: Mapping[str, Any]) -> str | None:
    """The kind of attention that these keys (Hugging Face's) ask for, if it is neither plain nor recurrent."""
    types = values.get("layer_types")
    plain = qwen3_5.KINDS  # recurrent layers are told by refuse_keys
    kinds = {str(kind) for kind in types if kind not in plain} if isinstance(types, list) else set()
    if kinds:
        window = values.get("sliding_window")
        if kinds != {SLIDING}:
            return f"a model with layers of an unknown kind (layer_types: {', '.join(sorted(kinds))})"
        if not isinstance(window, int) or isinstance(window, bool) or window < 1:
            return f"a model with sliding-window layers and no size for them (sliding_window {window!r})"
    if not isinstance(types, list) and _windowed(values) and values.get("model_type") != "gemma3_text":
        return f"a model with sliding-window attention (sliding_window {values['sliding_window']})"
    if key := next((key for key in OTHER_ARITHMETIC if not is_no(values.get(key))), None):
        return f"a model with attention or logits of another kind ({key} {values[key]})"
    if not is_no(values.get("num_kv_shared_layers")):
        return f"a model whose layers share keys and values (num_kv_shared_layers {values['num_kv_shared_layers']})"
    if not is_no(values.get("hidden_size_per_layer_input")):
        return "a model with an input of its own for each layer (hidden_size_per_layer_input)"
    return None


def _windowed(values: Mapping[str, Any]) -> bool:
    """Whether some layers see a window only. Qwen's own switch is off unless said; others have the window or null."""
    if is_no(values.get("sliding_window")):
        return False
    plain, layers = values.get("max_window_layers"), values.get("num_hidden_layers")
    if isinstance(plain, int) and isinstance(layers, int) and plain >= layers:
        return False
    if "use_sliding_window" in values:
        return not is_no(values["use_sliding_window"])
    return not str(values.get("model_type", "")).startswith("qwen")


def _levels(values: Mapping[str, Any], depth: int = 3) -> Iterator[Mapping[str, Any]]:
    """The object and those within it: models of several parts describe the text part in an object of its own."""
    yield values
    for inner in values.values() if depth else ():
        if isinstance(inner, dict):
            yield from _levels(inner, depth - 1)


def _by_keys(values: Mapping[str, Any], hybrid: bool = False, has_eyes: bool = False) -> tuple[str, str] | None:
    """A kind that is not served, and the key that tells it; `hybrid`: recurrent layers are, `has_eyes`: images are."""
    if has_eyes:
        dropped = [key for key in values if VISION_CONFIG.fullmatch(key)]
        values = {key: value for key, value in values.items() if key not in (*dropped, "architectures")}
    for level in _levels(values):
        for key, value in level.items():
            if hybrid and _of_hybrid(key, value):
                continue
            kind = _config_kind(key) if value == {} else None if is_no(value) else _key_kind(key, value)
            if kind and not (has_eyes and kind.startswith(IMAGES)):
                return kind, key
    kind = values.get("type")
    plain = ("llm", "vlm", "") if has_eyes else ("llm", "")
    if "mode" in values and isinstance(kind, str) and kind.lower() not in plain:
        return IMAGES if kind.lower() == "vlm" else f"a model of type {kind}", "type"
    names = values.get("architectures")
    if isinstance(names, list) and names and not any(str(name).endswith(CAUSAL) for name in names):
        return f"a {names[0]}, which is no ...ForCausalLM", "architectures"
    return None


def _of_hybrid(key: str, value: Any) -> bool:
    """Whether a key says only what a hybrid is: its layers, or the name of its tokenizer."""
    if key == "layer_types":
        return isinstance(value, list) and set(map(str, value)) <= set(qwen3_5.KINDS)
    return key == "full_attention_interval" or (key == "tokenizer_type" and value == qwen3_5.TOKENIZER_TYPE)


def _key_kind(key: str, value: Any) -> str | None:
    """The kind that a key tells, its value being anything but a no."""
    if key in EMBEDDING_KEYS or (key == "model_type" and "embedding" in str(value).lower()):
        return EMBEDDING if not isinstance(value, list | dict) or key == "encoder_axmodels" else None
    if (key in ("model_type", "task_type") and value == "image_generation") or key == "is_image_generation":
        return PICTURES
    if key == "layer_types" and isinstance(value, list):
        recurrent = sorted({str(v) for v in value if re.search("linear|mamba|conv|recurrent|delta", str(v))})
        return f"{RECURRENT}: {', '.join(recurrent)}" if recurrent else None
    if key == "full_attention_interval":
        return RECURRENT if value != 1 else None
    if key == "is_encoder_decoder":
        return "a model of encoder and decoder"
    if key.lower() == "vlm_type" or (ENCODER_KEY.fullmatch(key) and isinstance(value, str)):
        return IMAGES
    if key == "tokenizer_type" and isinstance(value, str):
        plain = re.sub(r"[^a-z0-9]", "", value.lower())
        return f"{IMAGES}: {value}" if plain.endswith("vl") or plain in VISION_TYPES else None
    if SOUND_KEY.fullmatch(key) and isinstance(value, str):
        return SOUND
    return _config_kind(key)


def _config_kind(key: str) -> str | None:
    if VISION_CONFIG.fullmatch(key):
        return IMAGES
    return SOUND if SOUND_CONFIG.fullmatch(key) else None


def _file_kind(path: Path, shown: str) -> str | None:
    """The kind that a file beside the layers tells."""
    if path.name in ("preprocessor_config.json", "video_preprocessor_config.json"):
        return EITHER
    words, text = _words(shown), shown.lower()
    if path.suffix.lower() == ".bin" and "speech_embedding" in text:
        return SOUND
    if path.suffix.lower() not in (".axmodel", ".onnx"):
        return None
    if words & SOUND_WORDS:
        return SOUND
    if "vision" in text or "visual" in text or words & VISION_WORDS:
        return IMAGES
    if "encoder" in text:
        return EITHER
    return PICTURES if words & PICTURE_WORDS else None


def _words(name: str) -> set[str]:
    return set(re.split(r"[^a-z0-9]+", name.lower()))
