"""Conversations whose answers `drafts.py` records: an installation's day, code that is edited, plain chat."""

from __future__ import annotations

import json
import random
from dataclasses import dataclass
from pathlib import Path

NAMES = [
    "Ada",
    "Boris",
    "Chen",
    "Dora",
    "Emil",
    "Fatima",
    "Grace",
    "Hugo",
    "Ines",
    "Jonas",
    "Kira",
    "Luis",
    "Mona",
    "Nils",
    "Olga",
    "Pablo",
    "Rosa",
    "Sven",
    "Tara",
    "Yusuf",
]
CITIES = [
    "Lyon",
    "Oslo",
    "Porto",
    "Vienna",
    "Utrecht",
    "Gdansk",
    "Leipzig",
    "Bergen",
    "Seville",
    "Turin",
    "Ghent",
    "Malmo",
    "Tallinn",
    "Zagreb",
    "Kyoto",
]
QUESTIONS = [
    "What did you buy this week?", "Why do you want to catch that bird?", "Does your mother know what you do?",
    "How much did you pay for it?", "What will you do after you caught him?", "Do you sleep at night?",
    "Which of your plans was the best one?", "What went wrong the last time?",
    "Have you tried to make friends with him?", "Who delivers all these parcels?", "Can I help you?",
    "What do you eat when the plan fails?",
]  # fmt: skip
PLAIN = [
    "What is the capital of France, and what is it known for?", "Explain how a bicycle stays upright.",
    "Write a short poem about rain.", "Give me five ideas for a birthday present for my sister.",
    "How do I boil an egg?", "What is the difference between a list and a tuple in Python?",
    "Summarise the story of Romeo and Juliet in four sentences.", "Why is the sky blue?",
    "Write an email that asks my landlord to repair the heating.", "List the planets of the solar system.",
    "How does a vaccine work?", "What should I see in Rome in two days?",
]  # fmt: skip
CODE = [
    ('def area(width, height):\n    """Area of a rectangle."""\n    result = width * height\n    print(result)\n'
     '    return result\n\n\ndef volume(width, height, depth):\n    """Volume of a box."""\n'
     '    result = area(width, height) * depth\n    print(result)\n    return result\n', "result", "total"),
    ('class Account:\n    def __init__(self, owner, balance=0):\n        self.owner = owner\n'
     '        self.balance = balance\n\n    def deposit(self, amount):\n        self.balance += amount\n'
     '        return self.balance\n\n    def withdraw(self, amount):\n        if amount > self.balance:\n'
     '            raise ValueError("insufficient funds")\n        self.balance -= amount\n'
     '        return self.balance\n', "amount", "value"),
    ('{\n  "name": "server",\n  "port": 8000,\n  "host": "localhost",\n  "debug": false,\n  "paths": ["/var/log", '
     '"/var/run"],\n  "retries": 3,\n  "timeout": 30\n}\n', "8000", "9000"),
    ('import csv\n\n\ndef read_rows(path):\n    rows = []\n    with open(path) as file:\n'
     '        for row in csv.reader(file):\n            if row:\n                rows.append(row)\n    return rows\n\n'
     '\ndef count_rows(path):\n    rows = read_rows(path)\n    return len(rows)\n', "rows", "lines"),
    ('function greet(name) {\n  const message = "Hello, " + name + "!";\n  console.log(message);\n  return message;\n}'
     '\n\nfunction greetAll(names) {\n  for (const name of names) {\n    greet(name);\n  }\n}\n', "greet", "welcome"),
    ('SELECT customers.name, orders.total\nFROM customers\nJOIN orders ON orders.customer_id = customers.id\n'
     'WHERE orders.total > 100\nORDER BY orders.total DESC\nLIMIT 20;\n', "100", "250"),
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Turn:
    """What a client sends: `messages` that are new since the model's last answer, its `prediction` if it has one, the
    most tokens it takes."""

    messages: tuple[dict[str, str], ...]
    prediction: str = ""
    max_tokens: int = 125


Conversation = list[Turn]


def user(text: str, **more: str) -> Turn:
    return Turn(({"role": "user", "content": text},), **more)


def as_sent(requests: Path) -> list[Conversation]:
    """The requests of a file (JSON lines, each a whole chat request) as they are: one conversation each."""
    return [[Turn(tuple(request["messages"]), max_tokens=request["max_tokens"])] for request in _read(requests)]


def day(requests: Path, count: int) -> list[Conversation]:
    """`count` conversations in which the character of `requests` meets a visitor each: offers and friends' remarks of
    that file in any order, visitors' names, cities and questions."""
    sent, rng = _read(requests)[-1]["messages"], random.Random(1)
    system = sent[0]
    said = [message["content"] for message in sent if message["role"] == "user"]
    conversations = []
    for _ in range(count):
        name, city = rng.choice(NAMES), rng.choice(CITIES)
        asks = [f"{name}, a visitor from {city}, asks: {q}" for q in rng.sample(QUESTIONS, rng.randint(1, 3))]
        texts = rng.sample(said, rng.randint(2, 3))
        texts += [f"{name} says hello from {city}. {asks[0]}", *asks[1:]]
        rng.shuffle(texts)
        first = Turn((system, {"role": "user", "content": texts[0]}))
        conversations.append([first, *(user(text) for text in texts[1:])])
    return conversations


def code() -> list[Conversation]:
    """A file, and a request to change one word of it; `prediction` is the file as it was."""
    return [
        [Turn(({"role": "user", "content": f"Repeat this file with {old} renamed to {new}, and nothing else:\n```\n"
                                           f"{text}```"},), f"```\n{text}```", 220)]
        for text, old, new in CODE
    ]  # fmt: skip


def plain() -> list[Conversation]:
    """Questions that have nothing to do with each other."""
    return [[user(question)] for question in PLAIN]


def _read(requests: Path) -> list[dict]:
    return [json.loads(line) for line in requests.read_text().splitlines()]
