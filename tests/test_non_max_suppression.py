"""Non-maximum suppression against a plain loop."""

from functools import partial

import jax
import numpy as np
import pytest
from hypothesis import given

from cnn_jax._non_max_suppression import Boxes, non_max_suppression
from tests.helpers.oracles import intersection_over_union, seeds


def plain_non_max_suppression(boxes, scores, max_overlap, top_k):
    """Greedy suppression, one box after another."""
    kept = []
    for index in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        overlaps = [intersection_over_union(boxes[index], boxes[other]) for other in kept]
        if scores[index] > -np.inf and max(overlaps, default=0) <= max_overlap:
            kept.append(index)
    return (kept + [-1] * top_k)[:top_k]


@pytest.fixture(scope="module")
def suppress():
    run = jax.jit(partial(non_max_suppression, top_k=8))
    return lambda boxes, scores, max_overlap: run(Boxes(*boxes.T), scores, max_overlap=max_overlap).tolist()


@given(seed=seeds)
def test_the_kept_boxes_are_those_of_a_plain_loop(suppress, seed):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.integers(0, 12, (20, 2)), rng.integers(1, 7, (20, 2))], axis=1).astype(np.float32)
    scores = rng.integers(0, 9, 20).astype(np.float32)  # some are equal
    scores[rng.uniform(size=20) < 0.2] = -np.inf
    max_overlap = np.float32(rng.choice([0.0, 0.25, 0.5, 1.0]))
    assert suppress(boxes, scores, max_overlap) == plain_non_max_suppression(boxes, scores, max_overlap, 8)


def test_boxes_that_touch_do_not_overlap(suppress):
    boxes = np.array([[0, 4 * i, 4, 4] for i in range(20)], np.float32)
    assert suppress(boxes, np.arange(20, dtype=np.float32), np.float32(0)) == list(range(19, 11, -1))


def test_a_dropped_box_drops_no_other(suppress):
    """Of three boxes in a row, of which neighbors overlap, the first and the last stay."""
    boxes = np.array([[0, 3 * i, 4, 4] for i in range(3)] + [[50, 50, 4, 4]] * 17, np.float32)
    scores = np.array([3, 2, 1] + [-np.inf] * 17, np.float32)
    assert suppress(boxes, scores, np.float32(0)) == [0, 2] + [-1] * 6


def test_no_box_is_kept_if_no_score_is_finite(suppress):
    assert suppress(np.ones((20, 4), np.float32), np.full(20, -np.inf, np.float32), np.float32(0)) == [-1] * 8
