"""What is asked and how answers are drawn: the arguments of the Python door and their checks."""

from __future__ import annotations

import numbers
from collections.abc import Mapping, Sequence
from typing import Any, Literal, TypedDict

from vila_engine._core import InvalidArgument


class ChatMessage(TypedDict):
    """One message; `<image>` and `<video>` in a user's content stand for the next picture and video."""

    role: Literal["system", "user", "assistant"]
    content: str


Query = str | Sequence[ChatMessage]

Messages = list[tuple[str, str]]
"""(role, text) pairs, as the engine takes them."""


class Sampling(TypedDict, total=False):
    """How tokens are chosen; everything is optional.

    max_new_tokens (512); temperature (0.0: greedy); top_p (1.0); top_k (0: off); min_p (0.0); repetition_penalty (1.0);
    seed (0); stop (strings that end the answer); ignore_eos (False); num_beams (1: no beam search);
    prompt_lookup (0: off; else most tokens that a step proposes from earlier text: the same answer in fewer passes).
    """

    max_new_tokens: int
    temperature: float
    top_p: float
    top_k: int
    min_p: float
    repetition_penalty: float
    seed: int
    stop: str | Sequence[str]
    ignore_eos: bool
    num_beams: int
    prompt_lookup: int


_INT = 2**31 - 1
_INTEGERS = {"max_new_tokens": _INT, "top_k": _INT, "num_beams": _INT, "prompt_lookup": _INT, "seed": 2**64 - 1}
_NUMBERS = ("temperature", "top_p", "min_p", "repetition_penalty")


def checked_sampling(sampling: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters in the types that the engine takes; it checks the ranges itself.

    Raises:
        InvalidArgument: an unknown name, or a value of the wrong type.
    """
    checked: dict[str, Any] = {}
    for name, value in sampling.items():
        if name in _INTEGERS:
            checked[name] = checked_integer(f"[sampling] {name}", value, 0, _INTEGERS[name])
        elif name in _NUMBERS:
            if not isinstance(value, numbers.Real) or isinstance(value, bool):
                raise InvalidArgument(f"[sampling] {name}: expected a number, got {_kind(value)}")
            checked[name] = float(value)
        elif name == "ignore_eos":
            if not isinstance(value, bool):
                raise InvalidArgument(f"[sampling] {name}: expected True or False, got {_kind(value)}")
            checked[name] = value
        elif name == "stop":
            texts = [value] if isinstance(value, str) else value
            if not isinstance(texts, Sequence) or isinstance(texts, bytes):
                raise InvalidArgument(f"[sampling] stop: expected a list of texts, got {_kind(value)}")
            checked[name] = [checked_text("[sampling] stop", text) for text in texts]
        else:
            known = ", ".join(Sampling.__annotations__)
            raise InvalidArgument(f"[sampling] expected one of {known}, got {name!r}")
    return checked


def checked_messages(query: Query) -> Messages:
    """A query as (role, text) pairs; the engine checks the order of the roles.

    Raises:
        InvalidArgument: it is neither text nor a list of messages.
    """
    if isinstance(query, str):
        return [("user", checked_text("[prompt] query", query))]
    if not isinstance(query, Sequence) or isinstance(query, bytes):
        raise InvalidArgument(f"[prompt] expected text or a list of messages, got {_kind(query)}")
    messages = []
    for message in query:
        if not isinstance(message, Mapping) or set(message) != {"role", "content"}:
            raise InvalidArgument(f'[prompt] expected messages {{"role": ..., "content": ...}}, got {message!r:.200}')
        role = checked_text("[prompt] role", message["role"])
        messages.append((role, checked_text("[prompt] content", message["content"])))
    return messages


def checked_text(where: str, value: object) -> str:
    """`value` if it is text that UTF-8 can hold."""
    if not isinstance(value, str):
        raise InvalidArgument(f"{where}: expected text, got {_kind(value)}")
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise InvalidArgument(f"{where}: expected Unicode text, got a lone surrogate at {error.start}") from error
    return value


def checked_integer(where: str, value: object, lowest: int, highest: int) -> int:
    """`value` if it is an integer (numpy's included) in lowest..highest."""
    if not isinstance(value, numbers.Integral) or isinstance(value, bool):
        raise InvalidArgument(f"{where}: expected an integer, got {_kind(value)}")
    number = int(value)
    if not lowest <= number <= highest:
        raise InvalidArgument(f"{where}: expected an integer in {lowest}..{highest}, got {number}")
    return number


def _kind(value: object) -> str:
    return "nothing" if value is None else type(value).__name__
