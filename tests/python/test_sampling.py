"""Sampling against its definition, and beam search against a naive one, on a language model written in numpy."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from typing import Any

import numpy as np
import pytest
import vila_engine
from conftest import Converted
from numpy_llama import Array, NumpyLlama, log_softmax

QUESTION = "What is this?"
SHORT: dict[str, Any] = {"system": "Hi."}
"""A short system text, because the numpy model is slow."""
N_DRAWS = 500
FAILURE = 1e-9
"""Chance that a right sampler fails one comparison; the seeds are fixed, so the tests do not flicker."""


@pytest.fixture(scope="module")
def reference() -> NumpyLlama:
    return NumpyLlama("vila3b")


@pytest.fixture
def model(lone_model: vila_engine.Model) -> vila_engine.Model:
    return lone_model


@pytest.fixture(scope="module")
def prompt(lone_model: vila_engine.Model) -> list[int]:
    return lone_model.prompt_ids(QUESTION, **SHORT)


def test_the_reference_is_the_model(model: vila_engine.Model, reference: NumpyLlama, prompt: list[int]) -> None:
    found = model.logits(QUESTION, **SHORT)
    for length in (1, 7, len(prompt)):
        # The bound of the recorded logits, which is far below what any wrong step would move.
        assert np.abs(found[length - 1] - reference.logits([prompt[:length]])[0]).max() < 2e-4


def filtered(logits: Array, history: list[int], options: dict[str, Any]) -> Array:
    """The distribution that the parameters define: penalty, temperature, top-k, top-p, min-p, in this order."""
    logits = logits.copy()
    penalty = options.get("repetition_penalty", 1.0)
    for token in set(history):
        logits[token] = logits[token] / penalty if logits[token] > 0 else logits[token] * penalty
    p = np.exp(log_softmax(logits / options["temperature"]))
    order = np.argsort(-p, kind="stable")
    kept = order[: options.get("top_k") or len(p)]
    share = np.cumsum(p[kept]) / p[kept].sum()
    # The smallest set whose mass reaches top_p: everything up to the token that crosses it.
    kept = kept[: int(np.searchsorted(share, options.get("top_p", 1.0))) + 1]
    kept = kept[p[kept] >= options.get("min_p", 0.0) * p[kept[0]]]
    result = np.zeros_like(p)
    result[kept] = p[kept] / p[kept].sum()
    return result


def outside(counts: Counter[int], p: Array) -> list[int]:
    """Tokens whose counts do not fit their probabilities.

    Bernstein: P(|X - np| >= t) <= 2 exp(-t^2 / (2 (n p (1 - p) + t / 3))), solved for t, FAILURE split over the tokens.
    """
    n = counts.total()
    log = np.log(2 * len(p) / FAILURE)
    bounds = log / 3 + np.sqrt((log / 3) ** 2 + 2 * log * n * p * (1 - p))
    return [token for token, chance in enumerate(p) if abs(counts[token] - n * chance) > bounds[token]]


OPTIONS: list[dict[str, Any]] = [
    {"temperature": 1.0},
    {"temperature": 0.5},
    {"temperature": 2.5, "top_k": 20},
    {"temperature": 0.8, "top_p": 0.7},
    {"temperature": 1.2, "min_p": 0.1},
    {"temperature": 1.0, "repetition_penalty": 1.7},
    {"temperature": 1.4, "top_k": 40, "top_p": 0.9, "min_p": 0.05, "repetition_penalty": 0.8},
]


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_frequencies_follow_the_definition(
    model: vila_engine.Model, reference: NumpyLlama, prompt: list[int], options: dict[str, Any]
) -> None:
    p = filtered(reference.logits([prompt])[0], prompt, options)
    counts: Counter[int] = Counter()
    for seed in range(N_DRAWS):
        counts.update(
            model.generate(QUESTION, **SHORT, max_new_tokens=1, ignore_eos=True, seed=seed, **options).token_ids
        )
    assert set(counts) <= set(np.flatnonzero(p))
    assert not outside(counts, p)
    if options == {"temperature": 0.5}:  # the comparison can fail: these counts do not fit temperature 1
        assert outside(counts, filtered(reference.logits([prompt])[0], prompt, {"temperature": 1.0}))


def test_later_steps_draw_anew(model: vila_engine.Model, reference: NumpyLlama, prompt: list[int]) -> None:
    """The second token given the first, and its log probability under the unmodified model."""
    options: dict[str, Any] = {"temperature": 0.7, "top_k": 5}
    first = model.generate(QUESTION, **SHORT, max_new_tokens=1, ignore_eos=True).token_ids
    follow: Counter[int] = Counter()
    for seed in range(N_DRAWS):
        pieces = list(model.stream(QUESTION, **SHORT, max_new_tokens=2, ignore_eos=True, seed=seed, **options))
        if pieces[0].token_id == first[0]:
            follow[pieces[1].token_id] += 1
            logprob = reference.logprobs([prompt + first])[0][pieces[1].token_id] if len(follow) == 1 else None
            assert logprob is None or pieces[1].logprob == pytest.approx(logprob, abs=4e-4)
    p = filtered(reference.logits([prompt + first])[0], [], options)
    assert follow.total() > 50
    assert not outside(follow, p)


@pytest.mark.parametrize("penalty", [0.5, 2.0])
def test_greedy_repetition_penalty(
    model: vila_engine.Model, reference: NumpyLlama, prompt: list[int], penalty: float
) -> None:
    ids = list(prompt)
    for _ in range(24):
        logits = reference.logits([ids])[0]
        for token in set(ids):
            logits[token] *= 1 / penalty if logits[token] > 0 else penalty
        ids.append(int(logits.argmax()))
    options: dict[str, Any] = {**SHORT, "max_new_tokens": 24, "ignore_eos": True}
    found = model.generate(QUESTION, repetition_penalty=penalty, **options)
    assert found.token_ids == ids[len(prompt) :]
    assert found.token_ids != model.generate(QUESTION, **options).token_ids


def test_a_seed_is_a_text(model: vila_engine.Model) -> None:
    options: dict[str, Any] = {"temperature": 1.0, "max_new_tokens": 30, "ignore_eos": True}
    texts = [tuple(model.generate(QUESTION, **SHORT, seed=seed, **options).token_ids) for seed in (0, 1, 2**64 - 1)]
    again = [tuple(model.generate(QUESTION, **SHORT, seed=seed, **options).token_ids) for seed in (0, 1, 2**64 - 1)]
    assert texts == again
    assert len(set(texts)) == 3


def naive_beams(
    reference: NumpyLlama, prompt: list[int], width: int, steps: int, ends: set[int]
) -> tuple[list[int], float]:
    """Beam search with length-normalised scores, every hypothesis written out: the best answer and its score."""
    running: list[tuple[float, list[int]]] = [(0.0, [])]
    finished: list[tuple[float, list[int]]] = []
    for length in range(1, steps + 1):
        logprobs = reference.logprobs([prompt + ids for _, ids in running])
        grown = sorted(
            (
                (total + logprobs[b][v], [*ids, v])
                for b, (total, ids) in enumerate(running)
                for v in range(len(logprobs[b]))
            ),
            key=lambda item: -item[0],
        )[: 2 * width]
        finished += [(total / length, ids) for total, ids in grown[:width] if ids[-1] in ends]
        finished = sorted(finished, key=lambda item: -item[0])[:width]
        running = [(total, ids) for total, ids in grown if ids[-1] not in ends][:width]
        if len(finished) == width and finished[-1][0] >= grown[0][0] / length:
            break
    else:
        finished += [(total / steps, ids) for total, ids in running]
    score, ids = max(finished, key=lambda item: item[0])
    return ids, score


@pytest.mark.parametrize(("width", "steps"), [(2, 10), (5, 6)])
@pytest.mark.parametrize("question", ["Why?", "Two turns, a cat and 12 dogs."])
@pytest.mark.parametrize("ignore_eos", [True, False])
def test_beams_equal_a_naive_search(
    model: vila_engine.Model, reference: NumpyLlama, *, width: int, steps: int, question: str, ignore_eos: bool
) -> None:
    ends = set() if ignore_eos else {2}
    expected, score = naive_beams(reference, model.prompt_ids(question, **SHORT), width, steps, ends)
    pieces = list(model.stream(question, **SHORT, max_new_tokens=steps, num_beams=width, ignore_eos=ignore_eos))
    assert [piece.token_id for piece in pieces] == expected
    assert pieces[0].logprob == pytest.approx(score, abs=4e-4)


def test_beams_that_end_early_are_found(converted: Converted, reference: NumpyLlama) -> None:
    """With half of the vocabulary as ends, most answers finish; the search must weigh them by length."""
    folder = converted("vila3b")
    copy = folder.with_name("vila3b-many-ends")
    shutil.copytree(folder, copy)
    config = json.loads((copy / "config.json").read_text(encoding="utf-8"))
    ends = {2, *range(100, 110), *range(3, 352, 5)}
    config["llm"]["eos_token_ids"] = sorted(ends)
    (copy / "config.json").write_text(json.dumps(config), encoding="utf-8")
    lengths = set()
    with vila_engine.load(copy, kv_cache="f32") as model:
        for question in ("What is this?", "Why?", "A cat."):
            expected, _ = naive_beams(reference, model.prompt_ids(question, **SHORT), 4, 9, ends)
            found = model.generate(question, **SHORT, max_new_tokens=9, num_beams=4)
            assert found.token_ids == expected
            assert found.finish_reason == ("stop" if expected[-1] in ends else "length")
            lengths.add(len(expected))
    assert len(lengths) > 1


def test_wide_beams_find_the_best_of_all_answers(
    model: vila_engine.Model, reference: NumpyLlama, prompt: list[int]
) -> None:
    """Two tokens, every pair tried: a beam of 64 must find the best pair."""
    first = reference.logprobs([prompt])[0]
    second = reference.logprobs([[*prompt, token] for token in range(len(first))])
    best = np.unravel_index((first[:, None] + second).argmax(), second.shape)
    found = model.generate(QUESTION, **SHORT, max_new_tokens=2, num_beams=64, ignore_eos=True)
    assert found.token_ids == list(best)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, r"\[sampling\] temperature: expected a finite number >= 0, got -1"),
        ({"temperature": float("nan")}, r"temperature: expected a finite number >= 0, got -?nan"),
        ({"temperature": float("inf")}, r"temperature: expected a finite number"),
        ({"temperature": "hot"}, r"\[sampling\] temperature: expected a number, got str"),
        ({"temperature": None}, r"\[sampling\] temperature: expected a number, got nothing"),
        ({"top_p": 0.0}, r"top_p: expected a number in \(0, 1\], got 0"),
        ({"top_p": 1.01}, r"top_p: expected a number in \(0, 1\], got 1.01"),
        ({"top_k": -1}, r"top_k: expected an integer in 0\.\.2147483647, got -1"),
        ({"top_k": 2.0}, r"top_k: expected an integer, got float"),
        ({"min_p": 1.5}, r"min_p: expected a number in \[0, 1\], got 1.5"),
        ({"repetition_penalty": 0.0}, r"repetition_penalty: expected a finite number > 0, got 0"),
        ({"max_new_tokens": 0}, r"max_new_tokens: expected at least 1, got 0"),
        ({"max_new_tokens": 2**40}, r"max_new_tokens: expected an integer in 0\.\.2147483647"),
        ({"max_new_tokens": True}, r"max_new_tokens: expected an integer, got bool"),
        ({"seed": -1}, r"seed: expected an integer in 0\.\.18446744073709551615, got -1"),
        ({"seed": 2**64}, r"seed: expected an integer in"),
        ({"stop": [""]}, r"stop: expected non-empty strings, got an empty one"),
        ({"stop": [3]}, r"\[sampling\] stop: expected text, got int"),
        ({"stop": 3}, r"\[sampling\] stop: expected a list of texts, got int"),
        ({"ignore_eos": 1}, r"ignore_eos: expected True or False, got int"),
        ({"prompt_lookup": 16}, r"prompt_lookup: expected an integer in 0\.\.15, got 16"),
        ({"prompt_lookup": 2, "num_beams": 2}, r"prompt_lookup: expected 0 with num_beams > 1"),
        ({"num_beams": 0}, r"num_beams: expected an integer in 1\.\.64, got 0"),
        ({"num_beams": 65}, r"num_beams: expected an integer in 1\.\.64, got 65"),
        ({"num_beams": 2, "temperature": 1.0}, r"temperature: expected 0 with num_beams > 1"),
        ({"num_beams": 2, "repetition_penalty": 2.0}, r"repetition_penalty: expected 1 with num_beams > 1"),
        ({"beams": 2}, r"\[sampling\] expected one of max_new_tokens, .*prompt_lookup, got 'beams'"),
    ],
    ids=str,
)
def test_wrong_parameters(model: vila_engine.Model, options: dict[str, Any], message: str) -> None:
    before = model.generate(QUESTION, **SHORT, max_new_tokens=3).token_ids
    with pytest.raises(vila_engine.InvalidArgument, match=message):
        model.stream(QUESTION, **SHORT, **options)
    assert model.generate(QUESTION, **SHORT, max_new_tokens=3).token_ids == before


def test_numbers_of_numpy_are_numbers(model: vila_engine.Model) -> None:
    found = model.generate(
        QUESTION, **SHORT, max_new_tokens=np.int64(4), temperature=np.float32(0.5), seed=np.uint64(7), ignore_eos=True
    )
    assert (
        found.token_ids
        == model.generate(QUESTION, **SHORT, max_new_tokens=4, temperature=0.5, seed=7, ignore_eos=True).token_ids
    )


@pytest.mark.parametrize("options", [{}, {"temperature": 0.7, "seed": 5}, {"repetition_penalty": 1.3}])
@pytest.mark.parametrize("longest", [1, 4, 15])
def test_prompt_lookup_changes_no_token(model: vila_engine.Model, longest: int, options: dict[str, Any]) -> None:
    asked: dict[str, Any] = {**SHORT, "max_new_tokens": 40, "ignore_eos": True, **options}
    text = "one two three one two three one two"
    plain = model.generate(text, **asked)
    chat = model.chat(system="Hi.")
    asked.pop("system")
    first = chat.send(text, **asked, prompt_lookup=longest)
    assert first.token_ids == plain.token_ids
    assert (plain.usage.proposed_tokens, plain.usage.accepted_tokens) == (0, 0)
    assert 0 <= first.usage.accepted_tokens <= first.usage.proposed_tokens
    # What was proposed in vain left nothing in the cache: the next turn is that of a chat without it.
    other = model.chat(system="Hi.")
    other.send(text, **asked)
    assert (
        chat.send("And four?", **asked, prompt_lookup=longest).token_ids == other.send("And four?", **asked).token_ids
    )


def test_prompt_lookup_is_right_where_text_repeats(model: vila_engine.Model) -> None:
    # A penalty below 1 is a reward: the answer goes round in circles.
    asked: dict[str, Any] = {**SHORT, "max_new_tokens": 200, "ignore_eos": True, "repetition_penalty": 0.05}
    result = model.generate(QUESTION, **asked, prompt_lookup=4)
    assert result.token_ids == model.generate(QUESTION, **asked).token_ids
    assert 30 < result.usage.accepted_tokens <= result.usage.proposed_tokens


def test_prompt_lookup_stays_inside_the_limits(model: vila_engine.Model) -> None:
    for limit in (1, 2, 3):
        result = model.generate(QUESTION, **SHORT, max_new_tokens=limit, ignore_eos=True, prompt_lookup=15)
        assert (result.usage.completion_tokens, result.finish_reason) == (limit, "length")
