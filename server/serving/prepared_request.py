"""An accepted request on its way: what the engine is to generate, and what every answer of it says of itself."""

from __future__ import annotations

import secrets
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from axpress.core.request import GenerationRequest

from .generation_spec import GenerationSpec

if TYPE_CHECKING:
    from axpress.core.engine.engine_group import AnyEngine

    from .output_parser import OutputParser

TokenBytes = Callable[[int], bytes]


@dataclass(slots=True)
class PreparedRequest:
    """`requests`: one for each answer, prompt by prompt, `spec.n` of each. `parsers`: one for each answer that is more
    than plain content (reasoning, calls), else empty. `nonce`: what makes the ids of this answer and of its parts
    unique."""

    spec: GenerationSpec
    requests: Sequence[GenerationRequest]
    engine: AnyEngine
    model: str
    fingerprint: str
    parsers: Sequence[OutputParser] = ()
    nonce: str = field(default_factory=lambda: secrets.token_hex(12))
    created: int = field(default_factory=lambda: int(time.time()))

    @property
    def prompt_tokens(self) -> int:
        """Tokens of all prompts; each counts once, however many answers it gets."""
        return sum(len(request.prompt_ids) for request in self.requests[:: self.spec.n])

    @property
    def token_bytes(self) -> TokenBytes | None:
        """For log-probabilities, where they are wanted."""
        return self.engine.text.token_bytes if self.spec.wants_logprobs else None

    def parser(self, index: int) -> OutputParser | None:
        """What takes answer `index` apart; None: it is plain content."""
        return self.parsers[index] if self.parsers else None

    def call_id(self, index: int, call: int) -> str:
        """The id of call number `call` of answer `index`: the same in a stream and in a whole answer."""
        return f"call_{self.nonce}{index:02x}{call:02x}"
