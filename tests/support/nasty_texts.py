"""Texts on which tokenizers differ if they differ: code, emoji, many scripts, runs of blanks, control tokens as text,
combining marks, numbers, line ends, and characters drawn from all of Unicode."""

from __future__ import annotations

import random
from collections.abc import Iterator, Sequence

WORDS = (
    "Hello", "world", "the", "quick brown fox", "don't", "DON'T", "we're", "I'LL", "it\u2019s", "'s", "'T", "naïve",
    "Straße", "ŒUVRE", "İstanbul", "привет", "Ελληνικά", "שלום", "مرحبا بالعالم", "नमस्ते",
    "ภาษาไทย", "안녕하세요", "こんにちは", "カタカナ", "你好，世界。", "繁體中文", "漢字かな交じり文", "龥龦", "㐀",
    "𠀀𠮷", "ﬁ", "ｆｕｌｌ", "ª", "ⅷ", "Ⅷ", "ǅ", "x86_64", "C++", "a_b", "snake_case_name", "camelCase",
    "HTTPServer", "e.g.", "U.S.A.", "__init__", "ABCdef",
)  # fmt: skip
CODE = (
    "def f(x: int) -> str:\n    return f'{x!r}'\n", "for (int i = 0; i < n; ++i) {\r\n\ta[i] += 0x1F;\r\n}",
    "#include <a.h>\n", "SELECT * FROM t WHERE id = 'x''y';", "<div class=\"a\">&nbsp;</div>", "</s>",
    "{\"k\": [1, 2.5e-3, null]}", "\\begin{x}", "$\\alpha_{i}^{2}$", "https://example.org/a?b=c&d=%20#e",
    "!important;", "//////", "======", "-----\n", "```py\n", "...", "!?!?", "(((", ")]}", "\"'", "'''''",
    "@user #tag", "a@b.de", "--flag=value", "&&", "||", "->", "=>", "::", "<|", "|>", "<0x0A>", "\u2581",
)  # fmt: skip
NUMBERS = (
    "0", "7", "42", "123", "1234", "12345", "1234567890", "3.14159", "1,000,000", "2026-11-25", "00:00", "1e10",
    "٣٤٥", "१२३", "½", "²", "①②", "𝟘𝟙", "４５６", "1a2b", "v1.2.3", "-5", "+49 170", "0b1010",
)  # fmt: skip
EMOJI = (
    "😀", "👋🏽", "👨‍👩‍👧‍👦", "🏳️‍🌈", "🇩🇪🇨🇳", "❤️", "☺", "1️⃣", "🤖", "🫠", "\U0001fae8", "⭐", "™", "→",
    "√", "€", "£", "§", "°C",
)  # fmt: skip
MARKS = (
    "e\u0301", "é", "a\u0308\u0323", "\u0301", "\u0308\u0308", "क\u094d\u0937", "\u0e33", "가", "\u1100\u1161",
    "Å", "\u212b", "ñ", "n\u0303", "\u200d", "\u200b", "\ufeff", "\u00ad", "\u202e", "\ufe0f",
    "z\u0335\u0321\u0353",
)  # fmt: skip
BLANKS = (
    " ", "  ", "   ", "       ", " " * 31, " " * 70, "\t", "\t\t", "\n", "\n\n", "\n" * 5, "\n" * 33, "\r\n", "\r",
    " \n ", "\n ", " \t\n", "\u00a0", "\u2003", "\u3000", "\u2028", "\u0085", "\x0b", "\x0c", "\x1c",
)  # fmt: skip
ODD = (
    "\x00", "\x01", "\x7f", "\x80", "\xa0", "\xad", "\xff", "Ġ", "Ċ", "ĉ", "Ā", "ń", "\ufffd", "\ufffe",
    "\U0010ffff", "\ud7ff", "\ue000",
)  # fmt: skip


def _random_characters(rng: random.Random) -> str:
    """A few characters of one block of Unicode, or of anywhere."""
    start = rng.choice(
        (0, 0x80, 0x300, 0x400, 0x600, 0x900, 0xE00, 0x1100, 0x2000, 0x3040, 0x4E00, 0xAC00, 0x1F300, -1)
    )
    codes = [rng.randrange(0x110000) if start < 0 else start + rng.randrange(0x100) for _ in range(rng.randint(1, 6))]
    return "".join([chr(code) for code in codes if not 0xD800 <= code < 0xE000])


def nasty_texts(count: int, control: Sequence[str] = (), seed: int = 1, drawn: float = 0.08) -> Iterator[str]:
    """`count` texts, the same for the same arguments. `control`: spellings of control tokens, mixed in; `drawn`: the
    share of parts that are drawn from all of Unicode."""
    rng = random.Random(seed)
    pools: list[Sequence[str]] = [WORDS, WORDS, WORDS, CODE, NUMBERS, EMOJI, MARKS, BLANKS, BLANKS, ODD]
    if control:
        cut = [token[: rng.randint(1, len(token))] for token in control]
        pools.append([*control, *cut, *(token.upper() for token in control)])
    yield from ("", " ", "\n", "a", " a", "a ")
    for _ in range(count - 6):
        parts = []
        for _ in range(rng.choice((1, 2, 3, 5, 8, 13, 30))):
            parts.append(_random_characters(rng) if rng.random() < drawn else rng.choice(rng.choice(pools)))
            parts.append(rng.choice(("", "", " ")))
        yield "".join(parts)
