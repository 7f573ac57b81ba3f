"""The bigram baseline: what counting pairs of tokens reaches, the loss that a model has to beat."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from tqdm import tqdm

STRENGTHS = (1, 3, 10, 30, 100)  # of the prior, in observations
PIECE = 1 << 18  # pairs that are counted or looked up in one go


def bigram_loss(
    train_ids: Sequence[int], ids: Sequence[int], vocab: int, strengths: Sequence[float] = STRENGTHS
) -> float:
    """Nats per token of the best that the previous token alone can do, on ids.

    Counts of pairs in train_ids, smoothed towards the single-token frequencies with the weight of
    `k` observations (Dirichlet prior; MacKay and Peto, 1995); of a few k, the kindest is taken.

    >>> round(bigram_loss([0, 1] * 500, [0, 1, 0, 1], 2), 2)
    0.0
    """
    train, other = (np.asarray(part).astype(np.int64, copy=False) for part in (train_ids, ids))
    n = max(vocab, train.max() + 1, other.max() + 1)
    single = np.bincount(train, minlength=n)
    context = np.bincount(train[:-1], minlength=n)
    pairs, counts = count_pairs(train, n)
    totals = [0.0] * len(strengths)
    for start in range(0, len(other) - 1, PIECE):
        part = other[start : start + PIECE + 1]
        a, b = part[:-1], part[1:]
        at = np.searchsorted(pairs, a * n + b).clip(max=len(pairs) - 1)
        seen = np.where(pairs[at] == a * n + b, counts[at], 0)
        prior = (single[b] + 1) / (len(train) + vocab)
        for i, k in enumerate(strengths):
            totals[i] -= float(np.log((seen + k * prior) / (context[a] + k)).sum())
    return min(totals) / (len(other) - 1)


def count_pairs(ids: np.ndarray, n: int, piece: int = PIECE) -> tuple[np.ndarray, np.ndarray]:
    """The pairs (a, b) of neighbours, as a * n + b in order, and how often each occurs.

    A long text is counted piece by piece, so that no copy of it is needed.
    """
    pairs, counts = np.empty(0, np.int64), np.empty(0, np.int64)
    for start in tqdm(range(0, len(ids) - 1, piece), desc="counting pairs", delay=2, leave=False):
        part = ids[start : start + piece + 1]
        new, how_often = np.unique(part[:-1] * n + part[1:], return_counts=True)
        if len(pairs):
            new, at = np.unique(np.concatenate([pairs, new]), return_inverse=True)
            both = np.concatenate([counts, how_often])
            how_often = np.bincount(at, weights=both).astype(np.int64)
        pairs, counts = new, how_often
    return pairs, counts
