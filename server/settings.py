"""Every knob of the server in one place, with the unit and the reason of its default."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal


@dataclass(frozen=True, slots=True)
class Settings:
    """What `axpress serve` was asked for. All times in seconds, all sizes in bytes.

    A flat list, however long: each attribute is an option of the command line, by the same name.

    model_dir None: the demo model on the emulator. device: "auto", "emu", "axengine" or a card's index; "0,1", "all",
    "emu:0,1" or "emu:all": the model on each of several cards.
    """

    model_dir: Path | None = None
    more_models: tuple[Path, ...] = ()
    """Directories of further models, served beside the first one on the same card."""
    on_demand: bool = False
    """Serve what lies in the models directory, too, each model from the first request for it on."""
    pinned: tuple[str, ...] = ()
    """Names of models that stay on the card once they are there."""
    keep_loaded: float = 300.0
    """How long an idle model stays on the card that was loaded on demand, unless a request says otherwise."""
    load_later: bool = False
    """Load models beside those that are on the card, between their passes; else the card is opened again with all."""
    device: str | int = "auto"
    split: tuple[int, ...] = ()
    """Indexes of the cards over which the model's layers are split; empty: one card, unless the package says more."""
    profile: str | None = None
    emu_speed: float | None = None
    model_name: str | None = None
    aliases: tuple[str, ...] = ()
    """Further names that requests may call the model by."""
    reranker: bool = False
    """The model ranks documents, too, whether its package says so or not."""
    host: str = "127.0.0.1"
    port: int = 8000
    max_running: int = 16
    """Answers generated at a time; they share the passes over the card."""
    banks: int | None = None
    """Caches on the card, each with the model's context of rows; None: as the engine finds best for the memory."""
    exact: bool = False
    """Single decodes only: the last bit of an answer cannot depend on what runs beside it, at the price of speed."""
    drafts: bool = True
    """Guess tokens from the conversation and check them in the same pass. Never changes an answer."""
    draft_history: int = 1 << 16
    """Tokens of past answers kept in memory, 24 bytes each, to guess later ones of the same tenant from; 0: none."""
    trace: Path | None = None
    """Chrome trace JSON of all steps, for a person to look at."""
    heat: tuple[float, float, float] = (75.0, 80.0, 85.0)
    """Degrees Celsius of the card at which a warning is logged, at which passes become fewer, and at which none runs.
    It resets itself at 120."""
    max_queue: int = 32
    """Requests that may wait for the card; the next one is answered 429 at once."""
    request_timeout: float = 600.0
    """Total life of one request: waiting and generating."""
    read_timeout: float = 20.0
    """Total time to send one request, header and body; a client that dribbles is cut."""
    stall_timeout: float = 30.0
    """How long a streaming client may leave its answer unread before it is cut."""
    drain_timeout: float = 30.0
    """How long running answers may go on after SIGTERM."""
    max_body: int = 4 << 20
    """Of a request; where pictures are taken, one of `max_image_bytes` may come beside so much."""
    max_image_bytes: int = 10 << 20
    """Of a picture's file."""
    max_image_pixels: int = 25_000_000
    """Of a picture, once decoded: 3 to 8 bytes of memory each, for the one picture that is decoded at a time."""
    max_images: int = 8
    """Pictures of one request."""
    allow_image_hosts: tuple[str, ...] = ()
    """Hosts from which pictures are fetched that requests name by URL; never at private addresses. Empty: from none."""
    max_connections: int = 256
    keep_alive: float = 75.0
    api_keys: Path | None = None
    """File of API keys (http/api_keys.py); the variable AXPRESS_API_KEYS adds to it. Without either, everybody is
    answered."""
    key_concurrency: int | None = None
    """Answers at a time for one key; the next is 429. None: as many as there is room for."""
    rate: tuple[int | None, int | None] = (None, None)
    """Requests and tokens a minute for one key, or without keys for one address; beyond, 429. None: any number."""
    separate_keys: bool = False
    """No cached prompt of one key is used for another: the time to a first token then tells nothing about others'
    prompts."""
    allow_origins: tuple[str, ...] = ()
    """Pages (scheme://host:port) that may use this server from a browser, besides its own."""
    allow_hosts: tuple[str, ...] = ()
    """Names under which this server is reached, besides localhost and the machine's own."""
    lenient: bool = False
    """Leave out unknown fields, and cut what is asked for beyond the context, as others do, instead of refusing."""
    store_responses: Path | None = None
    """SQLite file of what /v1/responses answered, for previous_response_id; None: nothing is ever stored."""
    store_limit: tuple[int, int] = (10_000, 256 << 20)
    """Responses that are stored, and bytes of them; the oldest go."""
    state_dir: Path | None = None
    """Where restarts and reboots of a card are counted, so that nothing loops; None: what systemd gives, else the
    user's state directory (for an emulated card: nowhere)."""
    log_level: str = "info"
    log_format: Literal["text", "json", "journal"] = "text"

    @property
    def max_picture_body(self) -> int:
        """As `max_body`, of a request with pictures, which are base64 there."""
        return self.max_body + (self.max_image_bytes + 2) // 3 * 4

    @property
    def is_demo(self) -> bool:
        """True when no model was named, so the toy model is served on the emulated card."""
        return self.model_dir is None and not self.on_demand

    @property
    def several(self) -> bool:
        """Whether requests choose among models."""
        return bool(self.more_models) or self.on_demand

    @property
    def several_cards(self) -> bool:
        """Whether there may be more than one."""
        return isinstance(self.device, str) and ("," in self.device or self.device.endswith("all"))

    @property
    def directory(self) -> Path:
        """The model directory to open."""
        if self.model_dir is not None:
            return self.model_dir
        from axpress.core.device.model_loader import default_model

        return default_model()

    @property
    def effective_device(self) -> str | int:
        """The device to open: the demo model runs on the emulator, said so wherever it is shown."""
        return "emu" if self.is_demo and self.device == "auto" else self.device
