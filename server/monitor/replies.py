"""What /health and /live answer."""

from __future__ import annotations

from typing import Any, Literal, NotRequired

from typing_extensions import TypedDict

from axpress.core.engine.snapshot import CardShare, CardState, Running

from ..http.replies import Count, Seconds, closed


@closed
class Loading(TypedDict):
    """How far the loading of the model is."""

    stage: Literal["loading", "probing"]
    """Files are being loaded, or all are and the card is being tried out."""
    files_done: Count
    files: Count
    mib_done: Count
    mib: Count
    """Of the model files."""
    seconds: Seconds
    """Since it began, as of the latest file."""
    seconds_left: Seconds | None
    """For the files alone; null before the first is loaded."""
    unanswered: str
    """What the card was asked to do and has not done in time; empty if nothing."""


@closed
class Status(TypedDict):
    """A word for probes of orchestrators."""

    status: str


@closed
class CardReport(TypedDict):
    """What card and machine said of themselves not long ago; bytes, degrees Celsius. null: nobody says."""

    source: str
    """Who told of the card first: runtime, axcl-smi, pyaxcl; empty: nobody did."""
    temperature_c: float | None
    total_cmm: Count | None
    free_cmm: Count | None
    npu_load: Count | None
    """As the source tells it: percent, as far as is seen."""
    cpu_load: Count | None
    """Of the card's processors."""
    link_gts: float | None
    """Speed of the PCI Express link in GT/s; null for an emulated card."""
    link_width: Count | None
    """Its lanes."""
    undervoltage: bool | None
    """Whether a Raspberry Pi has too little voltage now."""
    throttled: bool | None
    """Whether it runs slower than it could, for that or for heat."""


@closed
class Recovery(TypedDict):
    """What is being done about a card that failed."""

    kind: str
    """card_lost, card_hung, card_failed, bad_output."""
    seconds: Seconds
    """Since it failed."""
    trying: str
    next_try_seconds: Seconds | None
    """Until that begins; null: it is being tried."""


@closed
class OneCard(TypedDict):
    """One of several cards with the model. One that it could not be loaded on has name, status and reason only."""

    name: str
    """As --device has it; it keeps it where a spare card takes over."""
    status: str
    """As for the server."""
    reason: str
    recovery: NotRequired[Recovery]
    device: NotRequired[str]
    num_running: NotRequired[Count]
    num_waiting: NotRequired[Count]
    rows_used: NotRequired[Count]
    rows: NotRequired[Count]
    num_banks: NotRequired[Count]
    recoveries: NotRequired[dict[str, dict[str, int]]]
    duty: NotRequired[float]
    """Share of time in which it may work, for its heat."""
    card: NotRequired[CardReport | None]
    """null: not read yet."""
    stats: NotRequired[dict[str, Any]]
    """Its engine's counters."""


@closed
class ModelState(TypedDict):
    """A model, where requests choose among several: one that is on the card, or waited for."""

    name: str
    status: str
    """waiting, loading, leaving; on the card as for the server: ready, recovering, failed."""
    stays: bool
    """It never leaves the card by itself."""
    num_users: Count
    """Requests that have it."""
    waiting_for_load: Count
    """Requests that wait for it to be loaded."""
    num_loads: Count
    load_seconds: Seconds
    """The last time, with all that had to be loaded again beside it."""
    card_bytes: Count
    """Of the card's memory: measured, or as reckoned before it is loaded."""
    leaves_in_seconds: Seconds | None
    """Unless somebody asks for it; null: it does not, or is used."""
    context_length: NotRequired[Count]
    embeds: NotRequired[bool]
    reranks: NotRequired[bool]
    num_banks: NotRequired[Count]
    num_running: NotRequired[Count]
    num_waiting: NotRequired[Count]
    rows_used: NotRequired[Count]
    rows: NotRequired[Count]
    stats: NotRequired[dict[str, Any]]
    """Its engine's counters, since it was loaded."""


@closed
class Health(TypedDict):
    """How the server is: all its numbers in one flat object, as monitors read them. Where API keys are needed, a client
    without one is told the status only."""

    status: str
    """ready, or why not: loading, recovering, hot, stalled, draining, closed, failed. 503 goes with all but ready, and
    recovering for less than 30 seconds: requests wait then."""
    reason: NotRequired[str]
    since_seconds: NotRequired[Seconds]
    """How long it has been so."""
    loading: NotRequired[Loading]
    """While the model is being loaded."""
    recovery: NotRequired[Recovery]
    """While the card is being brought back."""
    model: NotRequired[str]
    device: NotRequired[str]
    emulated: NotRequired[bool]
    profile: NotRequired[str | None]
    context_length: NotRequired[Count]
    runtime: NotRequired[str]
    toy: NotRequired[bool]
    card: NotRequired[CardReport]
    num_running: NotRequired[Count]
    num_waiting: NotRequired[Count]
    max_running: NotRequired[Count]
    max_queue: NotRequired[Count]
    rows_used: NotRequired[Count]
    rows: NotRequired[Count]
    num_banks: NotRequired[Count]
    exact: NotRequired[bool]
    stats: NotRequired[dict[str, Any]]
    """The engine's counters."""
    recoveries: NotRequired[dict[str, dict[str, int]]]
    """How often which rung brought the card back (`rungs`), after failures of which kind (`faults`)."""
    note: NotRequired[str]
    cards: NotRequired[list[OneCard]]
    """Where there are several; the numbers above are sums then, `card` is the first that is known."""
    degraded: NotRequired[str]
    """What is the matter with some of the cards while others serve; empty: nothing."""
    models: NotRequired[list[ModelState]]
    """Where requests choose among several; the numbers above are sums then."""
    num_answers: NotRequired[Count]
    uptime_seconds: NotRequired[Seconds]


@closed
class LiveBank(TypedDict):
    """One cache, row by row."""

    rows: Count
    free: Count
    idle: Count
    """Hold a prefix that nobody uses at present."""
    shared: Count
    runs: list[int]
    """Holder, length, holder, length ... from row 0 on. Holder 0: nobody; -1: an idle prefix; n: answer n; -k: k
    answers together."""


@closed
class LivePicture(TypedDict):
    """The engine between two passes."""

    running: list[Running]
    num_waiting: Count
    tokens_per_s: float | None
    """null until somebody has been looking for a moment."""
    passes: list[tuple[int, int]]
    """The latest ones, oldest first: tokens and answers carried."""
    banks: list[LiveBank]
    """Of all cards, one after the other."""
    card: CardState
    cards: list[CardShare]
    """Where there are several; `card` is the first then."""


@closed
class Live(TypedDict):
    """What the card is doing: numbers only, no text. null: not known yet."""

    status: str
    reason: str
    model: str
    device: str | None
    emulated: bool | None
    toy: bool | None
    profile: str | None
    context_length: Count | None
    num_banks: Count | None
    max_running: Count | None
    max_queue: Count | None
    picture: LivePicture | None
