"""`axpress plan`: what fits into the card's memory and how fast it should be, on paper: file sizes, shapes and a
profile, no card.

plan_costs.py adds up the passes; here is what they make of a card's memory, a client, many clients and a target.
Nothing is measured; `bench/plan_check.py` compares it with what is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass

from ..device.model_loader import CMM_FLOOR, MAX_BANKS
from ..errors import PackageError, RequestError
from ..model_files.model_package import ModelPackage, open_package
from ..model_files.simulated_axmodel import SimMeta, read_axmodel
from ..model_files.timing_profile import Cost, Memory, Profile, load_profile, profile_names
from .pass_costs import ModelShape, Passes

MIB = 1 << 20
MAX_GUESSES = 12  # that a pass checks for one sequence, as in sequence.py
DEFAULT_CONTEXT = 250
MESSAGE = 50  # tokens of a next message
NO_YES = ("not reachable", "reachable")


@dataclass(frozen=True)
class Budget:
    """The card's memory in bytes, and the banks of `rows` rows that fit beside the weights (`banks`: those used unless
    told otherwise)."""

    cmm: int
    idle: int
    weights: int
    buffers: int
    row_bytes: int
    rows: int

    @property
    def free(self) -> int:
        """Bytes left for banks (negative: the model does not fit)."""
        return self.cmm - self.idle - CMM_FLOOR - self.weights - self.buffers

    @property
    def bank_bytes(self) -> int:
        return self.rows * self.row_bytes

    @property
    def fit(self) -> int:
        return max(0, self.free // self.bank_bytes)

    @property
    def banks(self) -> int:
        return min(self.fit, MAX_BANKS)


@dataclass(frozen=True)
class Crowd:
    """`running` of the clients at once in `banks` banks: milliseconds of a round of one token each, averaged over the
    answer."""

    clients: int
    running: int
    banks: int
    rows: int  # in the fullest bank, at the end of the answers
    round_ms: float

    @property
    def total_per_s(self) -> float:
        return 1e3 * self.running / self.round_ms


@dataclass(frozen=True)
class Plan:
    """The figures of `axpress plan`; times in ms unless named otherwise. `render` shows how they come about."""

    name: str
    profile: str
    shapes_from: str
    passes: Passes
    budget: Budget
    context: int
    shared: int
    first_token_ms: float
    first_token_terms: tuple[str, ...]
    warm_tokens: int  # of the context, when all but the last message, or what is shared, is cached
    warm_first_token_ms: float
    token_ms: float
    crowd: Crowd
    target_tokens: int
    target_seconds: float

    @property
    def tokens_per_s(self) -> float:
        """Of one client alone."""
        return 1e3 / self.token_ms

    @property
    def answer_s(self) -> float:
        """Seconds until the last of `target_tokens` tokens, the prompt not cached, alone."""
        return (self.first_token_ms + (self.target_tokens - 1) * self.token_ms) / 1e3

    @property
    def crowd_answer_s(self) -> float:
        """The same for each of the clients that run at once."""
        return (self.first_token_ms + (self.target_tokens - 1) * self.crowd.round_ms) / 1e3

    @property
    def reachable(self) -> bool:
        """Whether an answer of `target_tokens` tokens, alone, by decode alone, takes `target_seconds` at most."""
        return self.answer_s <= self.target_seconds

    def render(self) -> str:
        """The plan as text, with its arithmetic."""
        return "\n".join(
            [*_render_memory(self), "", *_render_passes(self), "", *_render_crowd(self), "", *_render_target(self)]
        )


def plan(
    directory: str | os.PathLike[str],
    profile: str | None = None,
    clients: int = 1,
    context: int | None = None,
    target_tokens: int = 100,
    target_seconds: float = 3.0,
    *,
    shared: int = 0,
) -> Plan:
    """Plans a model directory without touching a card.

    `profile`: name or path of a timing profile; simulated packages may name their own. `clients` converse at once, each
    with a prompt of `context` tokens, `shared` of them the same for all, and answers of `target_tokens`. Raises
    PackageError: the directory is none, or its shapes or times are not known; RequestError: figures that cannot be."""
    package = open_package(directory)
    loaded = _profile(package, profile)
    shape, source = _shape(package, loaded)
    context = max(1, min(DEFAULT_CONTEXT, shape.rows - target_tokens)) if context is None else context
    _check(shape, clients, context, target_tokens, target_seconds, shared)
    passes = Passes(shape, loaded.cost)
    budget = _budget(package, loaded.memory, shape)
    first, terms = passes.prompt(context)
    warm = min(context - 1, shared or max(0, context - MESSAGE))
    return Plan(
        name=package.name, profile=loaded.name, shapes_from=source, passes=passes, budget=budget, context=context,
        shared=shared,
        first_token_ms=first, first_token_terms=tuple(terms), warm_tokens=warm,
        warm_first_token_ms=passes.prompt(context, warm)[0],
        token_ms=_mean(lambda done: passes.decode(context + done), target_tokens),
        crowd=_crowd(passes, budget, clients, context, shared, target_tokens), target_tokens=target_tokens,
        target_seconds=target_seconds,
    )  # fmt: skip


def _profile(package: ModelPackage, name: str | None) -> Profile:
    """The profile to plan with. PackageError when there is none, or it is another model's."""
    chosen = name or package.profile
    if chosen is None:
        why = (
            "names no profile of its own"
            if package.simulated
            else "is a compiled model: only the card knows its shapes and times"
        )
        known = " | ".join(profile_names())
        raise PackageError(
            f"{package.directory} {why}; say which published figures to plan with: --profile {known}, or a TOML file"
        )
    profile = load_profile(chosen)
    if package.simulated:
        return profile  # the files have shapes of their own
    model = profile.model
    if model.layers != package.num_layers or package.hidden_size not in (None, model.hidden):
        mine = f"{package.num_layers} layers" + (f" of width {package.hidden_size}" if package.hidden_size else "")
        raise PackageError(
            f"profile {profile.name} describes {model.layers} layers of width {model.hidden}, {package.directory} has"
            f" {mine}: name the profile of the same model, or write a TOML file for it"
        )
    return profile


def _shape(package: ModelPackage, profile: Profile) -> tuple[ModelShape, str]:
    """Shapes and layer times, and where they come from. What a model file says wins over the profile, as on the
    emulated card."""
    cost, model = profile.cost, profile.model
    if not package.simulated:
        history = [min(p, model.rows) for p in model.history] if model.chunk else []
        decode = {model.rows: cost.decode_us(model.rows) / 1e3}
        chunks = {p: cost.chunk_us(p) / 1e3 for p in history}
        vocab, kv_dim = package.vocab_size or model.vocab, model.kv_heads * model.head_dim
        shape = ModelShape(model.layers, model.hidden, kv_dim, vocab, model.chunk, decode, chunks, cost.head_ms)
        return shape, f"profile {profile.name}"
    layer, head = read_axmodel(package.layer_files[0])[0], read_axmodel(package.head_file)[0]
    decode = {
        r: (cost.decode_us(r) if layer.cost_decode_us is None else layer.cost_decode_us) / 1e3
        for r in layer.decode_rows
    }
    head_ms = cost.head_ms if head.cost_head_us is None else head.cost_head_us / 1e3
    chunks, kv_dim = _chunk_ms(layer, cost), layer.kv_heads * layer.head_dim
    return (
        ModelShape(package.num_layers, layer.hidden, kv_dim, head.vocab, layer.chunk, decode, chunks, head_ms),
        "the model files",
    )


def _chunk_ms(layer: SimMeta, cost: Cost) -> dict[int, float]:
    if not layer.chunk:
        return {}
    micros = layer.cost_chunk_us or tuple(cost.chunk_us(p) for p in layer.history)
    return {p: us / 1e3 for p, us in zip(layer.history, micros, strict=True)}


def _check(shape: ModelShape, clients: int, context: int, tokens: int, seconds: float, shared: int) -> None:
    for value, name in ((clients, "clients"), (context, "context"), (tokens, "target tokens")):
        if value < 1:
            raise RequestError(f"{name} is {value}: it starts at 1")
    if not 0 < seconds < float("inf"):
        raise RequestError(f"the target is {seconds} seconds: it must be a time above 0")
    if not 0 <= shared <= context:
        raise RequestError(f"{shared} shared tokens of a context of {context}: it must be a part of it")
    if context + tokens > shape.rows:
        raise RequestError(
            f"a context of {context} tokens and an answer of {tokens} take {context + tokens} rows, the model's cache"
            f" has {shape.rows}; plan for at most {shape.rows - tokens}"
        )


def _budget(package: ModelPackage, memory: Memory, shape: ModelShape) -> Budget:
    """`buffers`: one of each that passes share (program.py); the masks of all groups are most of it."""
    masks = sum(2 * shape.chunk * (p + shape.chunk) for p in shape.chunk_ms) + sum(2 * (r + 1) for r in shape.decode_ms)
    width = max(shape.chunk, 1)
    buffers = masks + 2 * 2 * width * shape.hidden + 2 * 2 * width * shape.kv_dim + 2 * shape.vocab
    return Budget(
        memory.cmm_mib * MIB, memory.idle_cmm_mib * MIB, package.device_bytes, buffers, shape.row_bytes, shape.rows
    )


def _mean(cost: Callable[[int], float], tokens: int) -> float:
    """Average of `cost(i)` over the tokens of an answer."""
    return sum(cost(i) for i in range(tokens)) / tokens


def _crowd(passes: Passes, budget: Budget, clients: int, context: int, shared: int, tokens: int) -> Crowd:
    """The clients over as many banks as make a round shortest; each bank has its own copy of what they share."""
    own = context + tokens - shared
    fit = (passes.shape.rows - shared) // own  # of one bank; at least 1, since one conversation fits
    best = None
    for banks in range(1, max(1, min(budget.banks, clients)) + 1):
        running = min(clients, banks * fit)
        sizes = [running // banks + (i < running % banks) for i in range(banks)]

        def cost(done: int, sizes: list[int] = sizes) -> float:
            return sum(passes.round(n, shared + n * (context - shared + done)) for n in sizes if n)

        crowd = Crowd(clients, running, banks, shared + sizes[0] * own, _mean(cost, tokens))
        if best is None or (crowd.running, crowd.total_per_s) > (best.running, best.total_per_s):
            best = crowd
    assert best is not None
    return best


def _render_memory(p: Plan) -> list[str]:
    b, s = p.budget, p.passes.shape
    lines = [
        (
            f"{p.name}: planned, not measured. Shapes and layer times: {p.shapes_from}; memory, calls and bus: profile"
            f" {p.profile}"
        ),
        "",
        "Card memory (MiB)",
        (
            f"  {b.cmm // MIB} - idle {b.idle // MIB} - kept free {CMM_FLOOR // MIB} - {s.layers} layers and head"
            f" {b.weights / MIB:.0f} - buffers {b.buffers / MIB:.0f} = {b.free / MIB:.0f} for caches"
        ),
        (
            f"  a row: {s.layers} layers x 2 (K, V) x {s.kv_dim} x 2 bytes = {s.row_bytes / 1024:.0f} KiB; "
            f"a bank of {b.rows} rows: {b.bank_bytes / MIB:.0f} MiB"
        ),
    ]
    if b.free < 0:
        return [
            *lines,
            (
                f"  the model does not fit: {-b.free / MIB:.0f} MiB are missing; the figures below are for a card that"
                " has them"
            ),
        ]
    if not b.banks:
        return [
            *lines,
            (
                "  not one bank fits; a build with a smaller cache would; the figures below are for a card with room"
                " for one"
            ),
        ]
    used = f", {b.banks} are used unless told otherwise" if b.banks < b.fit else ""
    return [*lines, f"  {b.fit} bank{'s' * (b.fit > 1)} fit{used}: {b.banks * b.rows} rows"]


def _render_passes(p: Plan) -> list[str]:
    s, x = p.passes.shape, p.passes
    rows = min(r for r in s.decode_ms if r >= p.context)
    rest = x.decode(p.context) - s.layers * s.decode_ms[rows] - s.head_ms
    lines = [
        "One client (ms)",
        (
            f"  next token: {s.layers} layers x {s.decode_ms[rows]:.2f} + head {s.head_ms:.2f} + transfers and host"
            f" {rest:.2f} = {x.decode(p.context):.1f}: {p.tokens_per_s:.2f} tokens/s"
        ),
    ]
    if s.chunk:
        ladder = ", ".join(f"{x.chunk(h, 1):.0f} ({h})" for h in s.chunk_ms)
        lines.append(f"  a chunk of {s.chunk} with one head, by history: {ladder}; each further head {x.head:.1f}")
    lines.append(
        f"  first token of a {p.context}-token prompt: {' + '.join(p.first_token_terms)} = {p.first_token_ms:.0f}"
    )
    if p.warm_tokens:
        lines.append(f"  the same with its first {p.warm_tokens} tokens cached: {p.warm_first_token_ms:.0f}")
    return lines


def _render_crowd(p: Plan) -> list[str]:
    c = p.crowd
    if c.clients == 1:
        return ["One client asked for; --clients N shows what sharing passes brings"]
    what = f"prompts of {p.context} ({p.shared} shared), answers of {p.target_tokens}"
    lines = [
        f"{c.clients} clients, {what}: up to {c.rows} rows in"
        f" {'one bank' if c.banks == 1 else f'each of {c.banks} banks'}"
    ]
    if c.running < c.clients:
        lines.append(f"  {c.running} run at once, {c.clients - c.running} wait: the rows do not hold more")
    per_bank = -(-c.running // c.banks)
    chunk, singles = p.passes.chunk(c.rows, per_bank), per_bank * p.passes.decode(min(c.rows, p.passes.shape.rows))
    together = "no chunk group reaches so far back" if chunk is None else f"one chunk {chunk:.0f}"
    lines.append(f"  a token for each of {per_bank} when the bank is fullest: {together}, one by one {singles:.0f} ms")
    lines.append(f"  averaged over the answer {c.round_ms:.0f} ms a round: {c.total_per_s:.2f} tokens/s together, "
                 f"{1e3 / c.round_ms:.2f} each; {c.total_per_s / p.tokens_per_s:.2f} times one client")  # fmt: skip
    return lines


def _render_target(p: Plan) -> list[str]:
    need = p.target_tokens / p.target_seconds
    first, each = p.first_token_ms / 1e3, p.token_ms / 1e3
    lines = [
        f"Target: {p.target_tokens} tokens in {p.target_seconds:g} s ({need:.1f} tokens/s)",
        (
            f"  alone: first token {first:.2f} s + {p.target_tokens - 1} x {each:.4f} s = {p.answer_s:.2f} s:"
            f" {NO_YES[p.reachable]}"
        ),
    ]
    if p.crowd.clients > 1:
        verdict, each = NO_YES[p.crowd_answer_s <= p.target_seconds], p.crowd.round_ms / 1e3
        sum_ = f"{first:.2f} + {p.target_tokens - 1} x {each:.4f} = {p.crowd_answer_s:.2f} s"
        lines.append(f"  each of {p.crowd.running} at once: {sum_}: {verdict}")
    return lines if p.reachable else [*lines, "  what would help:", *(f"  - {line}" for line in _options(p))]


def _options(p: Plan) -> list[str]:
    """What shortens one client's answer, each with the time it would then take."""
    return [line for line in (_prefix_option(p), _head_option(p), _cache_option(p), _draft_option(p)) if line]


def _verdict(p: Plan, seconds: float) -> str:
    return f"{seconds:.2f} s, " + (
        "enough" if seconds <= p.target_seconds else f"still {seconds - p.target_seconds:.2f} s too long"
    )


def _prefix_option(p: Plan) -> str:
    saved = (p.first_token_ms - p.warm_first_token_ms) / 1e3
    return (
        f"a cached prefix (same system prompt, earlier turns): {_verdict(p, p.answer_s - saved)}" if saved > 0 else ""
    )


def _head_option(p: Plan) -> str:
    """A trimmed vocabulary: published once, 90.9k of 151.9k entries took 4.7 of 7.92 ms, in proportion to its size."""
    part = 0.6
    saved = p.target_tokens * (1 - part) * (p.passes.shape.head_ms + p.passes.logits) / 1e3
    return (
        f"a head trimmed to {part:.0%} of the vocabulary (time in proportion to its size):"
        f" {_verdict(p, p.answer_s - saved)}"
    )


def _cache_option(p: Plan) -> str:
    """A build with a smaller cache group, where the profile has a figure for one that holds the conversation."""
    need, now = p.context + p.target_tokens, min(r for r in p.passes.shape.decode_ms if r >= p.context)
    rows = [r for r in p.passes.cost.decode_rows if need <= r < now]
    if not rows:
        return (
            f"a build with a smaller decode group (this one reads {now} rows for every token): no published figure for"
            " this model"
        )
    saved = p.passes.shape.layers * (p.passes.shape.decode_ms[now] - p.passes.cost.decode_us(rows[0]) / 1e3)
    return (
        f"a build with a decode group of {rows[0]} rows (published):"
        f" {_verdict(p, p.answer_s - p.target_tokens * saved / 1e3)}"
    )


def _draft_option(p: Plan) -> str:
    """Guessed tokens that come true, where the text repeats: how many of a pass must, on average, for the target. A
    pass runs a head for each token that it chooses, so the tokens of a pass share the layers and not the heads."""
    layers = p.passes.chunk(p.context + p.target_tokens, 0)
    if layers is None:
        return f"drafts do not: no chunk group reaches back {p.context + p.target_tokens} rows"
    # ms for each token after the first
    left = (1e3 * p.target_seconds - p.first_token_ms) / max(1, p.target_tokens - 1)
    best = (p.first_token_ms + (p.target_tokens - 1) * (layers / (1 + MAX_GUESSES) + p.passes.head)) / 1e3
    needed = layers / (left - p.passes.head) - 1 if left > p.passes.head else float("inf")
    if needed > MAX_GUESSES:
        return f"drafts (text that repeats): even {MAX_GUESSES} guesses a pass, all true, give {_verdict(p, best)}"
    reach = f"reach it if {max(0.0, needed):.1f} of {MAX_GUESSES} guesses a pass come true on average"
    return (
        f"drafts (text that repeats): {reach} ({layers:.0f} ms a pass and {p.passes.head:.1f} a token); all true:"
        f" {best:.2f} s"
    )
