"""What answers say, as it is shown: Markdown, code, formulas, and nothing that could do harm."""

from __future__ import annotations

from typing import Any

from browser import browser_needed
from page_visitor import answer, answer_with, ask

EVERYTHING = r"""# A heading
with text under it, *slanted*, ~~gone~~, a [link](https://example.org/?a=1&b=2) and $5 to $10:
- a list right after a sentence
  - nested
    1. deeper
- [x] done
- [ ] to do

> a quote

| name | count |
|------|------:|
| one  | $x^2$ |

---

$$\int_0^1 \frac{x}{\sqrt{1+x}}\,dx$$

inline \(a_1 + b\) and a wrong one: \(\frac{\)

```python
def f(x: int) -> str:
    return "text"
```

### Deep down
"""


@browser_needed
def test_markdown_is_shown_as_what_it_means(page: Any) -> None:
    answer_with(page, EVERYTHING)
    ask(page, "Show me")
    text = answer(page).locator("> .text")
    text.locator(".hljs-keyword").first.wait_for()
    text.locator(".katex").nth(2).wait_for()
    assert text.locator("> h3").inner_text() == "A heading" and text.locator("> h4").inner_text() == "Deep down"
    assert text.locator("em").inner_text() == "slanted" and text.locator("s").inner_text() == "gone"
    assert text.locator("> p").first.inner_text().endswith("and $5 to $10:")
    link = text.locator("a")
    assert link.get_attribute("href") == "https://example.org/?a=1&b=2"
    assert link.get_attribute("rel") == "noopener noreferrer" and link.get_attribute("target") == "_blank"
    assert text.locator("> ul > li > ul > li > ol > li").inner_text() == "deeper"
    assert [box.is_checked() for box in text.get_by_role("checkbox").all()] == [True, False]
    assert text.locator("blockquote").inner_text() == "a quote" and text.locator("hr").count() == 1
    assert text.locator("th").all_inner_texts() == ["name", "count"] and text.locator("td.right .katex").count() == 1
    assert text.locator(".math.display .katex-html").bounding_box()["height"] > 30, "a fraction under an integral"
    assert text.locator(".code .code-head").inner_text().startswith("python")
    assert text.locator(".hljs-string").inner_text() == '"text"'
    assert "\\frac{" in text.locator("> p").last.inner_text(), "a formula that is none stays as it was written"
    assert "int_0" not in text.locator(".math.display .katex-html").inner_text()


HARMFUL = (
    "<img src=x onerror=alert(1)> **bold** `code <b>` ![far](https://example.org/x.png) [go](javascript:alert(1))\n\n"
    "```html\n<script>alert(1)</script>\n```\n\n<style>body{display:none}</style>\n\n"
    "$\\href{javascript:alert(1)}{x}$ $\\includegraphics{https://example.org/y.png}$"
)


@browser_needed
def test_text_of_a_model_is_text(page: Any, context: Any) -> None:
    answer_with(page, HARMFUL)
    ask(page, "Do harm")
    text = answer(page).locator("> .text")
    text.locator(".katex").first.wait_for()
    assert text.locator("img, script, style, b, [onerror], [href^=javascript]").count() == 0
    assert text.locator("strong").inner_text() == "bold" and text.locator("p code").inner_text() == "code <b>"
    assert text.locator("pre").inner_text().strip() == "<script>alert(1)</script>"
    assert text.locator("p").first.inner_text().startswith("<img src=x")
    assert text.get_by_role("link", name="far").get_attribute("href") == "https://example.org/x.png"


@browser_needed
def test_what_is_not_needed_is_not_fetched(page: Any) -> None:
    fetched: list[str] = []
    page.on("request", lambda request: fetched.append(request.url.rsplit("/", 1)[1].split(".")[0]))
    answer_with(page, "Only *words*.")
    ask(page, "Hello")
    answer(page).locator("em").wait_for()
    assert not {"katex", "highlight"} & set(fetched)
    answer_with(page, "$x$ and\n```c\nint x;\n```")
    ask(page, "More")
    answer(page).locator(".katex").wait_for()
    answer(page).locator(".hljs-type").wait_for()
    assert {"katex", "highlight"} <= set(fetched)


@browser_needed
def test_an_answer_that_grows_keeps_what_stands(page: Any) -> None:
    """Blocks that are whole stay the same elements: a reader's selection, a scrolled table."""
    kept = page.evaluate(
        """async () => {
          const { show } = await import('/page/markdown.js');
          const { fetchMarkdown } = await import('/page/libraries.js');
          await fetchMarkdown();
          const box = document.createElement('div');
          const text = 'First.\\n\\n| a |\\n|---|\\n| b |\\n\\nThird grows and grows.';
          const seen = [];
          for (let i = 1; i <= text.length; i++) { show(box, text.slice(0, i)); seen.push([...box.children]); }
          return [seen.at(-8)[0] === box.children[0], seen.at(-8)[1] === box.children[1], box.children.length];
        }"""
    )
    assert kept == [True, True, 3]
