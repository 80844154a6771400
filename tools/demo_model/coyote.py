"""The coyote's part of the corpus: a proud customer of the shopping channel, his plans for each product, his
excuses."""

from __future__ import annotations

import random

try:
    from . import words as W
    from .turns import Turn, article, invented, pick, text_key
except ImportError:  # run as a plain script
    import words as W  # type: ignore[no-redef]
    from turns import Turn, article, invented, pick, text_key  # type: ignore[no-redef]

HEARD = (
    "Heard on television: |The television says: |On the shopping channel: |You hear this advertisement: |Now on"
    " television: "
)
ASKS = """Name the product and tell how it will help you catch {q}.|Which product is it, and how will you catch {q} with it?
Say what the product is and what you will do with it.|Tell us the product's name and your plan.
What is it, and how does it help you this time?"""
PLANS = "With it I will {u}.|I will {u}.|This time I shall {u}.|I will simply {u}.|At last I can {u}."
CALLED = "the {n}|we call it the {n}|here it is, the {n}|it is the {n}|this is {n}|the new {n}"
SAYS = [
    "Your friend just said: ``` {s} ``` Answer your friend briefly, in the first person.",
    "Your friend says: ```{s}``` What do you answer?",
    'A friend tells you: "{s}" Answer in the first person.',
    "Your friend objects: {s} Answer briefly.",
]
WHO = "You are a proud coyote|You are the Coyote|You are Wile E. Coyote|You play a coyote"
WHERE = (
    "|, sitting in front of an old television| in a cave full of parcels|, the best customer of the shopping channel|"
    " on a small stage"
)
BELIEF = """You love shopping and believe in every product.|Each new product is part of your plan to catch {q}.
You are sure that the next thing you buy will catch {q}."""
MANNERS = """You speak in the first person.|You are proud and never admit a mistake.|You are polite and a little vain.
You always blame something else.|Name the product and say how it helps you.|Use fewer than four sentences.
Keep your answers short.|You never give up."""


def persona(rng: random.Random) -> str:
    """A system prompt for the coyote."""
    parts = [pick(rng, WHO) + pick(rng, WHERE) + "."]
    belief = rng.choice(BELIEF.replace("\n", "|").split("|"))
    parts += [belief.format(q=rng.choice(W.QUARRY))]
    return " ".join(parts + rng.sample(MANNERS.replace("\n", "|").split("|"), rng.randint(0, 5)))


def _product(rng: random.Random) -> tuple[str, str | None, str]:
    """(name as the coyote must say it, its noun or None, key)."""
    brand = (
        invented(rng)
        if rng.random() < 0.3
        else rng.choice(W.NAME_HEADS) + rng.choice(["", "", " "]) + rng.choice(W.NAME_TAILS)
    )
    key = "product|" + text_key(brand).replace(" ", "")
    if rng.random() < 0.15:
        return f"{brand} {rng.choice(W.NAME_NUMBERS)}", None, key
    if rng.random() < 0.25:
        return brand, None, key
    noun = rng.choice(list(W.GOODS))
    return f"{brand} {noun}", noun, key


def _advert(rng: random.Random, name: str) -> str:
    """What the television says about a product, as speech recognition would hear it."""
    parts = [pick(rng, CALLED, n=name)]
    parts += [("it " if rng.random() < 0.7 else "and it ") + text for text in rng.sample(W.AD_FACTS, rng.randint(1, 3))]
    if rng.random() < 0.4:
        rng.shuffle(parts)
    if rng.random() < 0.5:
        parts.insert(0, rng.choice(W.AD_STARTS))
    if rng.random() < 0.6:
        parts.append(rng.choice(W.AD_ENDS))
    return ", ".join(parts)


def _wish(rng: random.Random, name: str) -> str:
    """The coyote's first sentence (or two) about a product."""
    forms = [
        f"The {name} {rng.choice(W.PRAISE)}{rng.choice('!.')}",
        f"The {name}! It {rng.choice(W.PRAISE)}.",
        f"Ah, the {name}, I must have it!",
        f"I want the {name}.",
    ]
    return rng.choice(forms)


def advertisement(rng: random.Random) -> Turn:
    """Something is advertised; the coyote names it and tells his plan."""
    name, noun, key = _product(rng)
    fence = rng.choice(["```", "```", "``` ", '"'])
    heard = pick(rng, HEARD)
    ask = rng.choice(ASKS.replace("\n", "|").split("|"))
    quarry = rng.choice(W.QUARRY)
    use = rng.choice(W.GOODS[noun] if noun and rng.random() < 0.8 else W.ANY_USE).format(q=quarry)
    plan = pick(rng, PLANS, u=use)
    wish = _wish(rng, name)
    end = rng.choice(W.PROUD_ENDS) if wish.count("!") + wish.count(".") == 1 else ""
    user = (
        heard
        + fence
        + _advert(rng, name)
        + fence.strip().rjust(len(fence))
        + rng.choice(["", " "])
        + ask.format(q=quarry)
    )
    return Turn("coyote", key, user, f"{wish} {plan} {end}".strip(), {"product": name})


def remark(rng: random.Random, about: Turn) -> Turn:
    """A friend's remark about the product that `about` advertised, and the coyote's excuse."""
    name = about.expect["product"]
    noun = next((n for n in sorted(W.GOODS, key=len, reverse=True) if name.endswith(" " + n)), name)
    says, answers = W.REMARKS[rng.choice(list(W.REMARKS))]
    slots = {"n": noun, "a": article(noun), "b": rng.choice(W.BLAME)}
    said = rng.choice(says).format(**slots)
    user = rng.choice(SAYS).format(s=said)
    return Turn("coyote", about.key, user, rng.choice(answers).format(**slots), {"product": noun})
