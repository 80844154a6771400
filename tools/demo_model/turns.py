"""One question and one good answer of each kind; every maker draws from the word lists with the given random generator.

Makers must not change the order in which they draw: the same seed must give the same corpus.
"""

from __future__ import annotations

import json
import random
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

try:
    from . import facts as F
    from . import words as W
except ImportError:  # run as a plain script
    import facts as F  # type: ignore[no-redef]
    import words as W  # type: ignore[no-redef]


@dataclass(frozen=True)
class Turn:
    """A question, one good answer to it, the key of its combination and what the checker needs."""

    kind: str
    key: str
    user: str
    answer: str
    expect: dict[str, Any] = field(default_factory=dict)


def text_key(text: str) -> str:
    """Key of a free phrase: the phrase without case and punctuation."""
    return " ".join(re.findall(r"[a-z0-9]+", text.lower()))


def article(word: str) -> str:
    """The indefinite article for `word`."""
    return "an" if word[0].lower() in "aeiou" else "a"


def pick(rng: random.Random, phrases: str, **slots: Any) -> str:
    """One of the phrases between bars (or on lines), its slots filled."""
    return rng.choice(phrases.replace("\n", "|").split("|")).format(**slots)


def invented(rng: random.Random) -> str:
    """A name that is in no list, so that the model learns to copy and not only to choose."""
    vowels = ["a", "e", "i", "o", "u", "an", "el", "in", "ox", "ur"]
    return "".join(rng.choice("bdfgklmnprstvwz") + rng.choice(vowels) for _ in range(rng.randint(2, 3))).capitalize()


def vary(rng: random.Random, text: str) -> str:
    """The same question as a careless person writes it."""
    if rng.random() < 0.12:
        text = text.lower()
    if rng.random() < 0.12:
        text = text.rstrip("?.!")
    return text


# --- numbers --------------------------------------------------------------------------------------------------------
ASK_SUM = (
    "What is {e}?|What is {e}?|{e} = ?|Calculate {e}.|How much is {e}?|{e}|Can you tell me what {e} is?|Compute {e}"
    " please."
)


def _count(rng: random.Random) -> Turn:
    a = rng.randint(1, 12)
    b = a + rng.randint(2, 8)
    answer = ", ".join(str(n) for n in range(a, b + 1)) + "."
    user = pick(rng, "Count from {a} to {b}.|Please count from {a} to {b}.", a=a, b=b)
    return Turn("arithmetic", f"count|{a}|{b}", user, answer, {"exact": answer})


def _neighbour(rng: random.Random) -> Turn:
    a, after = rng.randint(1, 39), rng.random() < 0.5
    word, n = ("after", a + 1) if after else ("before", a - 1)
    user = pick(rng, "Which number comes {w} {a}?|What comes {w} {a}?", w=word, a=a)
    return Turn("arithmetic", f"{word}|{a}", user, f"The number {word} {a} is {n}.", {"number": n})


def arithmetic(rng: random.Random) -> Turn:
    """Sums and differences of 0..20, products of 1..10, counting, the number before or after."""
    op = rng.choice(["add", "add", "sub", "sub", "mul", "count", "next"])
    if op in ("count", "next"):
        return _count(rng) if op == "count" else _neighbour(rng)
    a, b = (rng.randint(1, 10), rng.randint(1, 10)) if op == "mul" else (rng.randint(0, 20), rng.randint(0, 20))
    if op == "sub" and a < b:
        a, b = b, a
    sign, word = {"add": ("+", "plus"), "sub": ("-", "minus"), "mul": (rng.choice("x*"), "times")}[op]
    n = {"add": a + b, "sub": a - b, "mul": a * b}[op]
    low, high = (min(a, b), max(a, b)) if op == "add" else (a, b)  # a sum is held out in both orders
    ask = rng.choice(ASK_SUM.split("|"))
    user = ask.format(e=f"{a} {rng.choice([sign, word])} {b}")
    answer = f"{a} {'x' if op == 'mul' else sign} {b} = {n}."
    return Turn("arithmetic", f"{op}|{low}|{high}", vary(rng, user), answer, {"number": n})


# --- lists and JSON -------------------------------------------------------------------------------------------------
ASK_LIST = """Name {c} {w}.|List {c} {w}.|Give me {c} {w}.|Can you name {c} {w}?|I need a list of {c} {w}.
Write down {c} {w}.|Which {c} {w} do you know?|Tell me {c} {w}."""
ASK_JSON = """Answer in JSON: {k} of {t}.|Answer in JSON with the keys {k}: {t}.|Give me {k} as JSON for {t}.
JSON please, {k}: {t}.|Turn this into JSON with {k}: {t}.|Write {k} as a JSON object: {t}."""


def listing(rng: random.Random) -> Turn:
    """A numbered list of so many things of a kind."""
    what, count = rng.choice(list(W.LISTS)), rng.randint(2, 6)
    first = rng.randrange(len(W.LISTS[what]))
    # always the same neighbours: a model this small repeats itself otherwise
    items = (W.LISTS[what] * 2)[first : first + count]
    number = rng.choice([W.NUMBER_WORDS[count], str(count)])
    user = vary(rng, pick(rng, ASK_LIST, c=number, w=W.LIST_NOUNS.get(what, what)))
    answer = "\n".join(f"{place}. {item}" for place, item in enumerate(items, 1))
    return Turn("list", f"list|{what}|{count}", user, answer, {"list": what, "count": count})


def _described(rng: random.Random) -> tuple[dict[str, Any], str, list[str], str]:
    """Something with properties: (all of them, the description, the keys to ask for, the combination's key)."""
    form = rng.choice(["thing", "thing", "person", "number"])
    full: dict[str, Any]
    if form == "thing":
        thing, colour, size = rng.choice(W.THINGS), rng.choice(W.COLOURS), rng.choice(W.SIZES)
        full = {"name": thing, "colour": colour, "size": size}
        keys = rng.sample(list(full), rng.choice([2, 2, 3, 1]))
        return full, f"{article(size)} {size} {colour} {thing}", keys, f"thing|{thing}|{colour}"
    if form == "person":
        name, age, city, job = rng.choice(W.NAMES), rng.randint(20, 70), rng.choice(W.CITIES), rng.choice(W.JOBS)
        full = {"name": name, "age": age, "city": city, "job": job}
        text = pick(
            rng,
            "{n}, {a}, {j} in {c}|{n} is {a} years old and works as {x} {j} in {c}",
            n=name,
            a=age,
            j=job,
            c=city,
            x=article(job),
        )
        return full, text, rng.sample(list(full), rng.choice([2, 2, 3])), f"person|{name}|{city}"
    thing, count, colour = rng.choice(W.THINGS), rng.randint(2, 20), rng.choice(W.COLOURS)
    full = {"thing": thing, "count": count, "colour": colour}
    return full, f"{thing}, {colour}, {count} of them", rng.sample(list(full), 2), f"number|{thing}|{count}"


def json_answer(rng: random.Random) -> Turn:
    """Some properties of a described thing, as a JSON object with the asked keys in the asked order."""
    full, text, keys, key = _described(rng)
    wanted = keys[0] if len(keys) == 1 else ", ".join(keys[:-1]) + " and " + keys[-1]
    user = pick(rng, ASK_JSON, k=wanted, t=text)
    value = {k: full[k] for k in keys}
    return Turn("json", key, user, json.dumps(value), {"json": value})


# --- talk -----------------------------------------------------------------------------------------------------------
def from_topics(kind: str, topics: list[F.Topic]) -> Callable[[random.Random], Turn]:
    """A maker of questions about these topics, with openers and (for facts) closers around them."""

    def make(rng: random.Random) -> Turn:
        topic = rng.choice(topics)
        user = vary(
            rng, rng.choice(F.OPENERS) + rng.choice(topic.asks) + rng.choice(F.CLOSERS if kind == "fact" else [""])
        )
        return Turn(kind, text_key(user), user, rng.choice(topic.answers), {"any": topic.needs})

    return make


def greeting(rng: random.Random) -> Turn:
    """A greeting and one back."""
    user = vary(rng, rng.choice(F.GREETINGS.asks) + rng.choice(F.GREETING_ENDS))
    return Turn("greeting", text_key(user), user, rng.choice(F.GREETINGS.answers), {"any": F.GREETINGS.needs})


def unknown(rng: random.Random) -> Turn:
    """A question that the model cannot answer, and that it says so."""
    frame = rng.choice(F.UNKNOWN_FRAMES)
    user = frame.format(s=rng.choice(F.UNKNOWN_SUBJECTS))
    return Turn("unknown", text_key(user), vary(rng, user), rng.choice(F.DO_NOT_KNOW), {"any": ["not know"]})


INTRODUCE = "My name is {n}.|I am {n}.|Hello, I am {n}.|Hi, my name is {n}!|Call me {n}.|People call me {n}."
WELCOME = "Nice to meet you, {n}!|Hello {n}, nice to meet you.|Hi {n}! How can I help you?|A pleasure, {n}!"
ASK_NAME = "What is my name?|Do you remember my name?|Who am I?|What did I say my name is?"


def name(rng: random.Random) -> Turn:
    """The user introduces himself."""
    who = invented(rng) if rng.random() < 0.3 else rng.choice(W.NAMES)
    user = pick(rng, INTRODUCE, n=who)
    return Turn("name", "name|" + who, user, pick(rng, WELCOME, n=who), {"all": [who]})


def recall(rng: random.Random, who: str) -> Turn:
    """The user asks for the name he gave earlier."""
    user = pick(rng, ASK_NAME)
    return Turn(
        "name",
        "name|" + who,
        user,
        pick(rng, "Your name is {n}.|You are {n}.|You said that your name is {n}.", n=who),
        {"all": [who]},
    )


ASK_STORY = """Tell me a short story about {x} and a {p}.|Write a story about {x} and a {p}.|I want a story with {x} and a {p}.
A story about {x} and a {p}, please.|Can you tell me a story about {x} and a {p}?"""
STORY = [  # one sentence from each
    "Once upon a time there was {x} that lived near the {p}.|Long ago {x} came to the {p}.|Near the {p} lived {x}.",
    """One morning the {a} found a {t} under a stone.|One day the {a} lost a {t} in the grass.
One night the {a} heard a {t} fall from the sky.""",
    (
        "{h} came by and said: 'Shall we look at it together?'|{h} saw it and wanted to help.|{h} had never seen such a"
        " {t} before."
    ),
    """They walked around the {p} until the sun went down.|They sat down by the {p} and talked for a long time.
They carried the {t} to the other side of the {p}.""",
    """In the end the {a} was {m}, and the {t} stayed with them.|From that day on the {a} was {m}.
The {a} went home and was {m} for many years.""",
]


def story(rng: random.Random) -> Turn:
    """Five sentences about an animal and a place."""
    animal, place = rng.choice(W.ANIMALS), rng.choice(W.PLACES)
    ask = rng.choice(ASK_STORY.replace("\n", "|").split("|"))
    thing, helper, mood = rng.choice(W.STORY_OBJECTS), rng.choice(W.STORY_HELPERS), rng.choice(W.STORY_FEELINGS)
    slots = {
        "x": f"{article(animal)} {animal}",
        "a": animal,
        "p": place,
        "t": thing,
        "m": mood,
        "h": f"{article(helper)} {helper}".capitalize(),
    }
    answer = " ".join([pick(rng, sentences, **slots) for sentences in STORY])
    return Turn("story", f"story|{animal}|{place}", vary(rng, ask.format(**slots)), answer, {"all": [animal, place]})
