"""What an answer consists of: its pieces, its text, and the counts and times beside it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

FinishReason = Literal["stop", "length", "cancelled"]


@dataclass(frozen=True)
class Piece:
    """One generated token.

    Attributes:
        text: What became complete with it: whole characters, possibly none.
        token_id: Its id.
        logprob: Its natural-log probability under the model's unmodified distribution.
    """

    text: str
    token_id: int
    logprob: float


@dataclass(frozen=True)
class Usage:
    """Token counts. `prompt_tokens` includes `image_tokens`; `cached_tokens` of them were computed before.

    With prompt lookup `proposed_tokens` were guessed from earlier text and `accepted_tokens` of them were right.
    """

    prompt_tokens: int
    image_tokens: int
    cached_tokens: int
    completion_tokens: int
    proposed_tokens: int
    accepted_tokens: int


@dataclass(frozen=True)
class Timings:
    """Wall times in seconds: loading the model, encoding pictures, running the prompt, generating."""

    load: float
    image: float
    prefill: float
    decode: float


@dataclass(frozen=True)
class Result:
    """A finished answer.

    Attributes:
        text: The answer without white space at its ends.
        token_ids: All generated ids, an end-of-sequence token included.
        finish_reason: "stop", "length" or "cancelled".
        usage: Token counts.
        timings: Wall times.
    """

    text: str
    token_ids: list[int]
    finish_reason: FinishReason
    usage: Usage
    timings: Timings
