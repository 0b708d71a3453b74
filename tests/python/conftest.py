"""Fixtures of the Python tests: golden checkpoints, converted once per run."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import vila_engine
from support import GOLDEN
from vila_engine.convert import convert

Converted = Callable[..., Path]


@pytest.fixture(scope="session")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Converted:
    """converted(variant, weights="f32") -> the model folder."""
    done: dict[tuple[str, str], Path] = {}

    def get(variant: str, weights: str = "f32") -> Path:
        key = (variant, weights)
        if key not in done:
            path = tmp_path_factory.mktemp("models") / f"{variant}-{weights}"
            convert(GOLDEN / variant / "checkpoint", path, weights=weights)
            done[key] = path
        return done[key]

    return get


@pytest.fixture(scope="session")
def folder(converted: Converted) -> Path:
    """The vila3b fixture in f32."""
    return converted("vila3b")


@pytest.fixture(scope="session")
def shared_model(folder: Path) -> Iterator[vila_engine.Model]:
    with vila_engine.load(folder, kv_cache="f32") as model:
        yield model


@pytest.fixture(scope="session")
def lone_model(folder: Path) -> Iterator[vila_engine.Model]:
    """The same with one thread: for many small answers, which threads would only wait for each other in."""
    with vila_engine.load(folder, kv_cache="f32", threads=1) as model:
        yield model


@pytest.fixture
def model(shared_model: vila_engine.Model) -> vila_engine.Model:
    """vila3b in f32 with an f32 cache, and nothing remembered from other tests."""
    shared_model._idle = None
    return shared_model
