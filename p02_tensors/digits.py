"""Handwritten digits without a download: strokes, bent at random and drawn with a soft pen."""

from __future__ import annotations

import numpy as np

SIZE = 8  # an image has SIZE x SIZE pixels

# The corners of each digit's stroke as (x, y): x from 0 to 3 to the right, y from 0 to 4 downwards.
STROKES = [
    "10 20 31 33 24 14 03 01 10",
    "01 20 24",
    "01 10 20 31 32 04 34",
    "00 30 12 22 33 24 14 03",
    "24 20 03 33",
    "30 00 02 22 33 24 04",
    "20 10 01 03 14 24 33 22 02",
    "00 30 14",
    "12 01 10 20 31 22 12 03 14 24 33 22",
    "32 12 01 10 20 31 33 24 04",
]


def digits(count: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, 64) float32, ink from 0 to 1 row by row, and what they show (count,) int64."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 10, count)
    return np.stack([draw(STROKES[label], rng) for label in labels]), labels


def draw(stroke: str, rng: np.random.Generator) -> np.ndarray:
    """One image (64,): the stroke turned, stretched and moved a little, with a shaking hand."""
    corners = np.array([(int(x), int(y)) for x, y in stroke.split()]) - [1.5, 2.0]
    bend = np.eye(2) + rng.normal(0, 0.15, (2, 2))
    shake = rng.normal(0, 0.15, corners.shape)
    corners = (corners + shake) @ bend * 1.5 + SIZE / 2 + rng.normal(0, 0.5, 2)
    centres = np.stack(np.meshgrid(*[np.arange(SIZE) + 0.5] * 2), -1).reshape(
        -1, 1, 2
    )  # (64, 1, 2)
    start, way = corners[:-1], corners[1:] - corners[:-1]
    along = ((centres - start) * way).sum(-1) / (way * way).sum(-1)  # (64, parts of the stroke)
    nearest = start + along.clip(0, 1)[..., None] * way
    distance = np.sqrt(((centres - nearest) ** 2).sum(-1)).min(-1)  # (64,)
    return (1.3 - distance).clip(0, 1).astype(np.float32)
