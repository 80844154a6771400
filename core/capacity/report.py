"""`axpress plan`: what fits into the card's memory and how fast it should be, on paper: file sizes, shapes and a
profile, no card.

profile_costs.py says what a pass takes, core/engine/pass_costs.py what prompts and rounds do; here is what they make of
a card's memory, a client, many clients and a target. Nothing is measured; `bench/plan_check.py` compares it with what
is."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property

from ..device.card_memory import CMM_FLOOR, MAX_BANKS
from ..engine.pass_costs import PassCosts, overlapped
from ..engine.sequence import MAX_DRAFT
from ..errors import PackageError, RequestError
from ..model_files.layer_blocks import MOST_CARDS, block_bytes, layer_blocks
from ..model_files.model_package import ModelPackage, open_package
from ..model_files.timing_profile import Memory, Profile, load_profile, profile_names
from .profile_costs import HOST_TOKEN_MS, ModelShape, model_shape, profile_costs

MIB = 1 << 20
DEFAULT_CONTEXT = 250
MESSAGE = 50  # tokens of a next message
NO_YES = ("not reachable", "reachable")


@dataclass(frozen=True)
class Budget:
    """The card's memory in bytes, and the banks of `rows` rows that fit beside the weights (`banks`: those used unless
    told otherwise); of several cards that share the layers that which has least room. `what`: the weights, in words."""

    cmm: int
    idle: int
    weights: int
    buffers: int
    row_bytes: int
    rows: int
    what: str

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
    profile: Profile
    shapes_from: str
    shape: ModelShape
    costs: PassCosts
    budget: Budget
    clients: int
    context: int
    shared: int
    target_tokens: int
    target_seconds: float
    cards: int
    cards_needed: int | None

    @property
    def first_token_ms(self) -> float:
        """The context's prefill and the first token chosen."""
        return self._first_token_ms(0)

    @property
    def warm_tokens(self) -> int:
        """Of the context, when all but the last message, or what is shared, is cached."""
        return min(self.context - 1, self.shared or max(0, self.context - MESSAGE))

    @property
    def warm_first_token_ms(self) -> float:
        """The first token with those cached."""
        return self._first_token_ms(self.warm_tokens)

    def _first_token_ms(self, num_cached: int) -> float:
        return 1e3 * (self.costs.prefill_seconds(num_cached, self.context) + self.costs.head)

    @property
    def first_token_terms(self) -> list[str]:
        """What the first token's time adds up from: the last term has the head."""
        terms, at = [], 0
        for slot, num_tokens, seconds in self.costs.prefill(0, self.context):
            at += num_tokens
            ms = 1e3 * (seconds + (self.costs.head if at == self.context else 0.0))
            chunk = f"chunk, history {self.costs.groups[slot].history}" if slot is not None else ""
            terms.append(f"{ms:.0f} ({chunk or f'{num_tokens} single passes'})")
        return terms

    @cached_property
    def token_ms(self) -> float:
        """A next token of one client alone, averaged over the answer."""
        return _mean_ms(lambda done: self.costs.single_seconds(self.context + done), self.target_tokens)

    @property
    def tokens_per_s(self) -> float:
        """Of one client alone."""
        return 1e3 / self.token_ms

    @cached_property
    def crowd(self) -> Crowd:
        """The clients over as many banks as make a round shortest; each bank has its own copy of what they share."""
        crowds = [self._crowd(banks) for banks in range(1, max(1, min(self.budget.banks, self.clients)) + 1)]
        return max(crowds, key=lambda crowd: (crowd.running, round(crowd.total_per_s, 6)))  # of equal ones few banks

    def _crowd(self, banks: int) -> Crowd:
        own = self.context + self.target_tokens - self.shared
        fit = (self.shape.rows - self.shared) // own  # of one bank; at least 1, since one conversation fits
        running = min(self.clients, banks * fit)
        sizes = [running // banks + (i < running % banks) for i in range(banks)]

        def round_seconds(done: int) -> float:
            each = self.context - self.shared + done
            highs = [[self.shared + (i + 1) * each for i in range(size)] for size in sizes]
            return overlapped([self.costs.round_seconds(bank_highs) for bank_highs in highs], self.cards)

        return Crowd(
            self.clients, running, banks, self.shared + sizes[0] * own, _mean_ms(round_seconds, self.target_tokens)
        )

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
    cards: int = 1,
) -> Plan:
    """Plans a model directory without touching a card, with its layers split over so many.

    `profile`: name or path of a timing profile; simulated packages may name their own. `clients` converse at once, each
    with a prompt of `context` tokens, `shared` of them the same for all, and answers of `target_tokens`. Raises
    PackageError: the directory is none, or its shapes or times are not known; RequestError: figures that cannot be."""
    package = open_package(directory)
    loaded = _profile(package, profile)
    shape = model_shape(package, loaded)
    context = max(1, min(DEFAULT_CONTEXT, shape.rows - target_tokens)) if context is None else context
    _check(shape, clients, context, target_tokens, target_seconds, shared)
    costs = profile_costs(shape, loaded.cost, max_heads=clients)
    if cards > shape.layers:
        layer_blocks(package, cards)  # says that it cannot be
    numbers = range(1, 1 + max(cards, min(MOST_CARDS, shape.layers)))
    budgets = {num_cards: _budget(package, loaded.memory, shape, costs, num_cards) for num_cards in numbers}
    source = "the model files" if package.simulated else f"profile {loaded.name}"
    return Plan(
        package.name, loaded, source, shape, costs, budgets[cards],
        clients, context, shared, target_tokens, target_seconds, cards,
        next((num_cards for num_cards, budget in budgets.items() if budget.banks), None),
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


def _budget(package: ModelPackage, memory: Memory, shape: ModelShape, costs: PassCosts, cards: int) -> Budget:
    """`buffers`: one of each that passes share (pass_buffers.pyx); the mask of the largest group is most of it."""
    width = max(shape.chunk, 1)
    masks = max(group.mask_bytes for group in costs.groups) * (2 if any(package.windows) else 1)
    buffers = masks + 2 * 2 * width * shape.hidden + 2 * 2 * width * shape.kv_dim + 2 * shape.vocab
    budgets = []
    for block, weights in zip(layer_blocks(package, cards), block_bytes(package, cards), strict=True):
        layers, head = block.stop - block.start, " and head" * (block.stop == shape.layers)
        budgets.append(Budget(
            memory.cmm_mib * MIB, memory.idle_cmm_mib * MIB, weights, buffers, shape.row_bytes * layers // shape.layers,
            shape.rows, f"{layers} layers{head}",
        ))  # fmt: skip
    return min(budgets, key=lambda budget: budget.free / budget.bank_bytes)


def _mean_ms(seconds: Callable[[int], float], tokens: int) -> float:
    """Average of `seconds(i)` over the tokens of an answer, in ms."""
    return 1e3 * sum(seconds(i) for i in range(tokens)) / tokens


def _render_memory(p: Plan) -> list[str]:
    budget, shape = p.budget, p.shape
    lines = [
        f"{p.name}: planned, not measured. Shapes and layer times: {p.shapes_from}; memory, calls and bus: profile"
        f" {p.profile.name}",
        "",
        "Card memory (MiB)" if p.cards == 1 else f"Memory (MiB) of that of {p.cards} cards which has least room",
        f"  {budget.cmm // MIB} - idle {budget.idle // MIB} - kept free {CMM_FLOOR // MIB} - {budget.what}"
        f" {budget.weights / MIB:.0f} - buffers {budget.buffers / MIB:.0f} = {budget.free / MIB:.0f} for caches",
        f"  a row: {budget.row_bytes // (4 * shape.kv_dim)} layers x 2 (K, V) x {shape.kv_dim} x 2 bytes ="
        f" {budget.row_bytes / 1024:.0f} KiB; a bank of {budget.rows} rows: {budget.bank_bytes / MIB:.0f} MiB",
    ]
    if shape.recurrent:
        each = f"{shape.state_bytes / MIB:.1f} MiB"
        lines.append(f"  a text's state in {shape.recurrent} recurrent layers: {each}, and as much for each kept one")
    if budget.free < 0:
        missing = f"{-budget.free / MIB:.0f} MiB are missing"
        fits = f"the model does not fit: {missing}; the figures below are for a card that has them"
    elif not budget.banks:
        without = "a build with a smaller cache would; the figures below are for a card with room for one"
        fits = f"not one bank fits; {without}"
    else:
        used = f", {budget.banks} are used unless told otherwise" if budget.banks < budget.fit else ""
        fits = f"{budget.fit} bank{'s' * (budget.fit > 1)} fit{used}: {budget.banks * budget.rows} rows"
    lines.append(f"  {fits}")
    if p.cards_needed is not None and p.cards_needed > p.cards:
        names = ",".join(map(str, range(p.cards_needed)))
        lines.append(
            f"  it needs {p.cards_needed} cards: `axpress serve --split {names}` puts a block of its layers on each;"
            f" plan that with --cards {p.cards_needed}"
        )
    return lines


def _render_passes(p: Plan) -> list[str]:
    shape, costs = p.shape, p.costs
    layer_ms = shape.decode_ms[_decode_rows(p)]
    single_ms, head_ms = 1e3 * costs.single_seconds(p.context), 1e3 * costs.head
    rest = single_ms - shape.layers_ms(1, layer_ms) - shape.head_ms
    layers = f"{shape.layers - shape.recurrent} layers x {layer_ms:.2f}"
    layers += f" + {shape.recurrent} recurrent x {shape.recurrent_decode_ms or layer_ms:.2f}" if shape.recurrent else ""
    lines = [
        "One client (ms)",
        f"  next token: {layers} + head {shape.head_ms:.2f} + transfers and host"
        f" {rest:.2f} = {single_ms:.1f}: {p.tokens_per_s:.2f} tokens/s",
    ]
    if shape.chunk:
        ladder = ", ".join(
            _few([f"{1e3 * (costs.chunk_seconds(h, 0) or 0) + head_ms:.0f} ({h})" for h in shape.chunk_ms])
        )
        lines.append(f"  a chunk of {shape.chunk} with one head, by history: {ladder}; each further head {head_ms:.1f}")
    terms = " + ".join(_few(p.first_token_terms))
    lines.append(f"  first token of a {p.context}-token prompt: {terms} = {p.first_token_ms:.0f}")
    if p.warm_tokens:
        lines.append(f"  the same with its first {p.warm_tokens} tokens cached: {p.warm_first_token_ms:.0f}")
    return lines


def _few(items: list[str]) -> list[str]:
    """The ends of a long list."""
    return items if len(items) <= 16 else [*items[:3], f"... {len(items) - 5} more ...", *items[-2:]]


def _decode_rows(p: Plan) -> int:
    """Rows of the decode group that a token after the context reads."""
    return p.costs.groups[p.costs.decode_slot(p.context)].history


def _render_crowd(p: Plan) -> list[str]:
    crowd = p.crowd
    if crowd.clients == 1:
        return ["One client asked for; --clients N shows what sharing passes brings"]
    what = f"prompts of {p.context} ({p.shared} shared), answers of {p.target_tokens}"
    banks = "one bank" if crowd.banks == 1 else f"each of {crowd.banks} banks"
    lines = [f"{crowd.clients} clients, {what}: up to {crowd.rows} rows in {banks}"]
    if crowd.running < crowd.clients:
        waiting = crowd.clients - crowd.running
        lines.append(f"  {crowd.running} run at once, {waiting} wait: the rows do not hold more")
    per_bank = -(-crowd.running // crowd.banks)
    chunk, single = p.costs.chunk_seconds(crowd.rows, per_bank), p.costs.single_seconds(crowd.rows)
    together = "no chunk group reaches so far back" if chunk is None else f"one chunk {1e3 * chunk:.0f}"
    singly = f"one by one {1e3 * per_bank * single:.0f} ms"
    rates = f"{crowd.total_per_s:.2f} tokens/s together, {1e3 / crowd.round_ms:.2f} each"
    return [
        *lines,
        f"  a token for each of {per_bank} when the bank is fullest: {together}, {singly}",
        f"  averaged over the answer {crowd.round_ms:.0f} ms a round: {rates};"
        f" {crowd.total_per_s / p.tokens_per_s:.2f} times one client",
    ]


def _render_target(p: Plan) -> list[str]:
    need = p.target_tokens / p.target_seconds
    first = p.first_token_ms / 1e3
    lines = [
        f"Target: {p.target_tokens} tokens in {p.target_seconds:g} s ({need:.1f} tokens/s)",
        f"  alone: first token {first:.2f} s + {p.target_tokens - 1} x {p.token_ms / 1e3:.4f} s = {p.answer_s:.2f} s:"
        f" {NO_YES[p.reachable]}",
    ]
    if p.crowd.clients > 1:
        verdict, each = NO_YES[p.crowd_answer_s <= p.target_seconds], p.crowd.round_ms / 1e3
        terms = f"{first:.2f} + {p.target_tokens - 1} x {each:.4f} = {p.crowd_answer_s:.2f} s"
        lines.append(f"  each of {p.crowd.running} at once: {terms}: {verdict}")
    return lines if p.reachable else [*lines, "  what would help:", *(f"  - {line}" for line in _options(p))]


def _options(p: Plan) -> list[str]:
    """What shortens one client's answer, each with the time it would then take."""
    return [line for line in (_prefix_option(p), _head_option(p), _cache_option(p), _draft_option(p)) if line]


def _verdict(p: Plan, seconds: float) -> str:
    over = seconds - p.target_seconds
    return f"{seconds:.2f} s, " + ("enough" if over <= 0 else f"still {over:.2f} s too long")


def _prefix_option(p: Plan) -> str:
    saved = (p.first_token_ms - p.warm_first_token_ms) / 1e3
    verdict = _verdict(p, p.answer_s - saved)
    return f"a cached prefix (same system prompt, earlier turns): {verdict}" if saved > 0 else ""


def _head_option(p: Plan) -> str:
    """A trimmed vocabulary: published once, 90.9k of 151.9k entries took 4.7 of 7.92 ms, in proportion to its size."""
    part = 0.6
    saved = p.target_tokens * (1 - part) * (p.costs.head - HOST_TOKEN_MS / 1e3)
    verdict = _verdict(p, p.answer_s - saved)
    return f"a head trimmed to {part:.0%} of the vocabulary (time in proportion to its size): {verdict}"


def _cache_option(p: Plan) -> str:
    """A build with a smaller cache group, where the profile has a figure for one that holds the conversation."""
    need, now = p.context + p.target_tokens, _decode_rows(p)
    rows = next((r for r in p.profile.cost.decode_rows if need <= r < now), None)
    if rows is None:
        smaller = f"a build with a smaller decode group (this one reads {now} rows for every token)"
        return f"{smaller}: no published figure for this model"
    saved = (p.shape.layers - p.shape.recurrent) * (p.shape.decode_ms[now] - p.profile.cost.decode_us(rows) / 1e3) / 1e3
    return (
        f"a build with a decode group of {rows} rows (published): {_verdict(p, p.answer_s - p.target_tokens * saved)}"
    )


def _draft_option(p: Plan) -> str:
    """Guessed tokens that come true, where the text repeats: how many of a pass must, on average, for the target. A
    pass runs a head for each token that it chooses, so the tokens of a pass share the layers and not the heads."""
    layers, head = p.costs.chunk_seconds(p.context + p.target_tokens, 0), p.costs.head
    if layers is None:
        return f"drafts do not: no chunk group reaches back {p.context + p.target_tokens} rows"
    first, further = p.first_token_ms / 1e3, p.target_tokens - 1
    left = (p.target_seconds - first) / max(1, further)  # for each token after the first
    best = first + further * (layers / (1 + MAX_DRAFT) + head)
    needed = layers / (left - head) - 1 if left > head else float("inf")
    if needed > MAX_DRAFT:
        return f"drafts (text that repeats): even {MAX_DRAFT} guesses a pass, all true, give {_verdict(p, best)}"
    reach = f"reach it if {max(0.0, needed):.1f} of {MAX_DRAFT} guesses a pass come true on average"
    cost = f"{1e3 * layers:.0f} ms a pass and {1e3 * head:.1f} a token"
    return f"drafts (text that repeats): {reach} ({cost}); all true: {best:.2f} s"
