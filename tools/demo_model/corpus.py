"""Generator of the demo corpus: short dialogues put together from word lists, with their held-out part and their
checker.

Every user turn has a key that names its combination ("add|5|7", "list|fruits|3", ...). A hash of the key decides
whether the turn belongs to training or is held out, so the two never share a prompt, whatever the seed."""

from __future__ import annotations

import hashlib
import json
import random
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

try:
    from . import coyote, turns
    from . import facts as F
    from . import words as W
    from .turns import Turn
except ImportError:  # run as a plain script
    import coyote  # type: ignore[no-redef]
    import facts as F  # type: ignore[no-redef]
    import turns  # type: ignore[no-redef]
    import words as W  # type: ignore[no-redef]
    from turns import Turn  # type: ignore[no-redef]

HELD_OUT_PART = 10  # one key in ten is held out

# kind -> (share of the dialogues, maker of its turns)
KINDS: dict[str, tuple[float, Callable[[random.Random], Turn]]] = {
    "arithmetic": (0.44, turns.arithmetic),
    "list": (0.14, turns.listing),
    "json": (0.10, turns.json_answer),
    "fact": (0.04, turns.from_topics("fact", F.FACTS)),
    "coyote": (0.10, coyote.advertisement),
    "smalltalk": (0.02, turns.from_topics("smalltalk", F.SMALL_TALK)),
    "greeting": (0.01, turns.greeting),
    "name": (0.10, turns.name),
    "story": (0.04, turns.story),
    "unknown": (0.01, turns.unknown),
}


@dataclass(frozen=True)
class Dialogue:
    """An optional system prompt and one or more turns; the last turn is the one that is evaluated."""

    system: str | None
    turns: tuple[Turn, ...]

    def messages(self) -> list[dict[str, str]]:
        """The dialogue in OpenAI's form, ending with the last answer."""
        result = [{"role": "system", "content": self.system}] if self.system else []
        for turn in self.turns:
            result += [{"role": "user", "content": turn.user}, {"role": "assistant", "content": turn.answer}]
        return result


def held_out(key: str) -> bool:
    """Whether the combination `key` is kept out of training."""
    return hashlib.sha256(key.encode()).digest()[0] % HELD_OUT_PART == 0


def _turn(rng: random.Random, kind: str, want_held_out: bool) -> Turn:
    make = KINDS[kind][1]
    while True:
        turn = make(rng)
        if held_out(turn.key) == want_held_out:
            return turn


def _coyote_dialogue(rng: random.Random, last: Turn) -> Dialogue:
    """Up to three products bought and discussed before; a third of the dialogues end with a friend's remark."""
    system = coyote.persona(rng)
    before: list[Turn] = []
    for _ in range(rng.choice([0] * 6 + [1, 2, 3])):
        before.append(_turn(rng, "coyote", False))
        if rng.random() < 0.6:
            before.append(coyote.remark(rng, before[-1]))
    if rng.random() < 0.35:
        return Dialogue(system, (*before, last, coyote.remark(rng, last)))
    return Dialogue(system, (*before, last))


def dialogue(rng: random.Random, kind: str, want_held_out: bool = False) -> Dialogue:
    """One dialogue whose last turn is of `kind`; every earlier turn comes from the training side."""
    last = _turn(rng, kind, want_held_out)
    if kind == "coyote":
        return _coyote_dialogue(rng, last)
    system = rng.choice(F.SYSTEM_PROMPTS) if rng.random() < 0.4 else None
    kinds = [k for k in KINDS if k not in ("coyote", "story")]
    before = [_turn(rng, rng.choice(kinds), False) for _ in range(rng.choice([0] * 8 + [1, 2]))]
    if kind == "name" and rng.random() < 0.5:  # the name is given first and asked for at the end
        before, last = [last, *(b for b in before if b.kind != "name")], turns.recall(rng, last.expect["all"][0])
    return Dialogue(system, (*before, last))


def stream(seed: int, want_held_out: bool = False, kinds: list[str] | None = None) -> Iterator[Dialogue]:
    """Endless dialogues, the same for the same seed; `kinds` one after the other if given, else by their share."""
    rng = random.Random(f"axpress-demo {seed} {want_held_out}")
    names, weights = list(KINDS), [share for share, _ in KINDS.values()]
    position = 0
    while True:
        kind = kinds[position % len(kinds)] if kinds else rng.choices(names, weights)[0]
        position += 1
        yield dialogue(rng, kind, want_held_out)


# --- is an answer of the right kind? --------------------------------------------------------------------------------
def _check_list(answer: str, what: str, count: int) -> bool:
    items = [re.fullmatch(r"\d+\. (.+)", line.strip()) for line in answer.strip().splitlines()]
    names = [m.group(1) for m in items if m]
    return len(names) == len(items) == count == len(set(names)) and set(names) <= set(W.LISTS[what])


def _check_json(answer: str, wanted: dict[str, Any]) -> bool:
    try:
        return bool(json.loads(answer) == wanted)
    except ValueError:
        return False


def _check_coyote(answer: str, product: str) -> bool:
    first_person = re.search(r"\b(I|[Mm]e|[Mm]y|[Mm]ine)\b", answer) is not None
    sentences = len(re.findall(r"[.!?]+(?:\s|$)", answer))
    return product.lower() in answer.lower() and first_person and 1 <= sentences <= 3


def check(expect: dict[str, Any], answer: str) -> bool:
    """Whether `answer` is right: the exact number, the asked count of distinct members, the asked JSON keys and values,
    the key phrase, the product named in the first person in under four sentences."""
    if "exact" in expect:
        return bool(answer.strip() == expect["exact"])
    if "number" in expect:
        numbers = re.findall(r"\d+", answer)
        return bool(numbers) and int(numbers[-1]) == expect["number"]
    if "list" in expect:
        return _check_list(answer, expect["list"], expect["count"])
    if "json" in expect:
        return _check_json(answer, expect["json"])
    if "product" in expect:
        return _check_coyote(answer, expect["product"])
    low = answer.lower()
    if "all" in expect:
        return all(word.lower() in low for word in expect["all"])
    return any(re.search(r"(?<!\w)" + re.escape(word.lower()) + r"(?!\w)", low) for word in expect["any"])
