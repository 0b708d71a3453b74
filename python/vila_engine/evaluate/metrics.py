"""Intervals, likelihoods and distances between distributions; everything in double precision."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

Z95 = 1.959963984540054


def wilson(right: float, count: int) -> tuple[float, float]:
    """The 95 % Wilson interval of a share.

    Args:
        right: Number of successes; fractions count in part.
        count: Number of trials.
    """
    if count == 0:
        return 0.0, 1.0
    share = right / count
    scale = 1 + Z95**2 / count
    middle = (share + Z95**2 / (2 * count)) / scale
    half = Z95 * math.sqrt(share * (1 - share) / count + Z95**2 / (4 * count**2)) / scale
    return max(0.0, middle - half), min(1.0, middle + half)


def bootstrap(values: Sequence[float], draws: int = 2000, seed: int = 0) -> tuple[float, float]:
    """The 95 % percentile interval of a mean, from resampling."""
    if not values:
        return 0.0, 0.0
    array = np.asarray(values, np.float64)
    rng = np.random.default_rng(seed)
    means = np.array([array[rng.integers(len(array), size=len(array))].mean() for _ in range(draws)])
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def log_softmax(logits: npt.ArrayLike) -> npt.NDArray[np.float64]:
    """Natural-log probabilities of logits `[..., V]`."""
    x = np.asarray(logits, np.float64)
    x = x - x.max(-1, keepdims=True)
    result: npt.NDArray[np.float64] = x - np.log(np.exp(x).sum(-1, keepdims=True))
    return result


def divergence(p: npt.NDArray[np.float64], q: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """KL(p || q) in nats of rows of log probabilities `[T, V]`."""
    result: npt.NDArray[np.float64] = (np.exp(p) * (p - q)).sum(-1)
    return result
