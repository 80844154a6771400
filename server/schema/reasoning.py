"""How much a model may reason before it answers, in the words of the dialects."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from axpress.core.errors import RequestError

from .fields import Strict

Effort = Literal["none", "minimal", "low", "medium", "high"]
EFFORT_BUDGETS: dict[str, int | None] = {"none": 0, "minimal": 64, "low": 256, "medium": 1024, "high": None}
"""Tokens of reasoning; None: no bound but that of the answer."""
ThinkingBudget = Annotated[int, Field(ge=0, lt=2**31)]


class TemplateArguments(Strict):
    """The only variable of the chat template that a request may set."""

    enable_thinking: bool | None = None


def thinking_asked(
    effort: Effort | None, enable: bool | None = None, budget: int | None = None
) -> tuple[bool | None, int | None, str]:
    """Whether the model shall reason (None: as it does by itself), for how many tokens, and the field that says so.

    An explicit budget goes before that of an effort. Raises RequestError where the fields contradict each other.
    """
    wishes = {}
    if effort is not None:
        wishes["reasoning_effort"] = effort != "none"
    if enable is not None:
        wishes["chat_template_kwargs.enable_thinking"] = enable
    if budget is not None:
        wishes["thinking_budget"] = budget > 0
    if len(set(wishes.values())) > 1:
        names = " and ".join(f"'{name}'" for name in wishes)
        raise RequestError(
            f"{names} contradict each other: one asks for reasoning, one for none.", next(iter(wishes)), "invalid_value"
        )
    thinking = next(iter(wishes.values()), None)
    limit = budget if budget is not None else EFFORT_BUDGETS[effort] if effort is not None else None
    return thinking, limit if thinking else None, next(iter(wishes), "reasoning_effort")
