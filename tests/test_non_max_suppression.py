"""Non-maximum suppression of turned rectangles against a plain loop."""

import math
from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from jax.sharding import Mesh, PartitionSpec

from cnn_jax._non_max_suppression import MAX_FOUND, TILE, non_max_suppression
from cnn_jax._rectangles import make_rectangles
from tests.helpers.oracles import intersection_over_union, seeds, turned_intersection_over_union

TOP_K = 8


def plain_non_max_suppression(overlap, boxes, scores, max_overlap, classes=None):
    """Greedy suppression, one box after another: the kept ones."""
    kept = []
    for index in sorted(range(len(scores)), key=lambda index: (-scores[index], index)):
        rivals = [other for other in kept if classes is None or classes[other] == classes[index]]
        overlaps = [overlap(boxes[index], boxes[other]) for other in rivals]
        if scores[index] > -np.inf and max(overlaps, default=0) <= max_overlap:
            kept.append(index)
    return kept


def first_of(kept):
    """What `suppress` gives: the first indices, and how many there are."""
    return (kept + [-1] * TOP_K)[:TOP_K], len(kept)


def upright(boxes):
    """Rectangles of boxes (top, left, height, width)."""
    boxes = np.asarray(boxes, np.float32)
    return np.column_stack([boxes[:, :2] + boxes[:, 2:] / 2, boxes[:, 2:], np.zeros(len(boxes))])


@pytest.fixture(scope="module")
def suppress():
    run = jax.jit(partial(non_max_suppression, top_k=TOP_K))

    def run_on_rows(rectangles, scores, max_overlap, classes):
        boxes = make_rectangles(*np.asarray(rectangles, np.float32).T)
        scores = np.asarray(scores, np.float32)
        kept = run(boxes, scores, max_overlap=np.float32(max_overlap), classes=np.asarray(classes))
        return kept.indices.tolist(), int(kept.found)

    return lambda rectangles, scores, max_overlap, classes=(0,) * 20: run_on_rows(
        rectangles, scores, max_overlap, classes
    )


def draw_scores(rng):
    scores = rng.integers(0, 9, 20).astype(np.float32)  # some are equal
    scores[rng.uniform(size=20) < 0.2] = -np.inf
    return scores


@given(seed=seeds)
def test_the_kept_boxes_are_those_of_a_plain_loop(suppress, seed):
    rng = np.random.default_rng(seed)
    boxes = np.concatenate([rng.integers(0, 12, (20, 2)), rng.integers(1, 7, (20, 2))], axis=1).astype(np.float32)
    scores = draw_scores(rng)
    max_overlap = np.float32(rng.choice([0.0, 0.25, 0.5, 1.0]))
    want = plain_non_max_suppression(intersection_over_union, boxes, scores, max_overlap)
    assert suppress(upright(boxes), scores, max_overlap) == first_of(want)
    shifted = upright(boxes) + [10_000, 20_000, 0, 0, 0]
    assert suppress(shifted, scores, max_overlap) == first_of(want)


@given(seed=seeds)
def test_turned_boxes_and_classes_are_those_of_a_plain_loop(suppress, seed):
    rng = np.random.default_rng(seed)
    boxes = np.column_stack([rng.uniform(0, 12, (20, 2)), rng.uniform(1, 7, (20, 2)), rng.uniform(-4, 4, 20)])
    boxes = boxes.astype(np.float32)
    scores = draw_scores(rng)
    classes = rng.integers(0, 3, 20)
    max_overlap = rng.choice([0.1, 0.25, 0.5])
    want = plain_non_max_suppression(turned_intersection_over_union, boxes, scores, max_overlap, classes)
    assert suppress(boxes, scores, max_overlap, classes) == first_of(want)


def test_boxes_that_touch_do_not_overlap(suppress):
    boxes = upright([[0, 4 * i, 4, 4] for i in range(20)])
    assert suppress(boxes, range(20), 0) == (list(range(19, 11, -1)), 20)


@pytest.mark.parametrize("angle", [math.pi / 4, math.pi / 2, 0.3])
def test_turned_boxes_that_touch_do_not_overlap(suppress, angle):
    along = np.array([math.cos(angle), math.sin(angle)])
    boxes = [(*20 * i * along, 20, 120, angle) for i in range(-10, 10)]
    assert suppress(boxes, range(20), 0) == (list(range(19, 11, -1)), 20)


def test_boxes_of_which_one_is_kept_under_every_threshold_but_the_largest(suppress):
    boxes = [(10, 10, 3, 5, 0.7)] * 20
    assert suppress(boxes, range(20), 0.999) == first_of([19])
    assert suppress(boxes, range(20), 1) == first_of(list(range(19, -1, -1)))


def test_a_dropped_box_drops_no_other(suppress):
    """Of three boxes in a row, of which neighbors overlap, the first and the last stay."""
    boxes = upright([[0, 3 * i, 4, 4] for i in range(3)] + [[50, 50, 4, 4]] * 17)
    assert suppress(boxes, [3, 2, 1] + [-np.inf] * 17, 0) == first_of([0, 2])


def test_no_box_is_kept_if_no_score_is_finite(suppress):
    assert suppress(upright(np.ones((20, 4))), np.full(20, -np.inf), 0) == first_of([])


def column(count):
    """Boxes below each other, the best first, and their scores."""
    boxes = upright([[4 * i, 0, 4, 4] for i in range(count)])
    return make_rectangles(*jnp.array(boxes, jnp.float32).T), -jnp.arange(count, dtype=jnp.float32)


def test_the_count_ends_at_its_limit_and_indices_do_not():
    suppress = jax.jit(non_max_suppression, static_argnames="top_k")
    boxes, scores = column(MAX_FOUND + 20)
    assert suppress(boxes, scores, max_overlap=0.0, top_k=1).found == MAX_FOUND
    kept = suppress(boxes, scores, max_overlap=0.0, top_k=MAX_FOUND + 10)
    assert kept.found == MAX_FOUND + 10
    assert kept.indices.tolist() == list(range(MAX_FOUND + 10))


def test_boxes_of_many_tiles_are_suppressed_alike():
    """Every second box is left out, the others overlap their neighbors by half."""
    count = 4 * TILE + 3
    boxes = make_rectangles(*jnp.array(upright([[i, 0, 4, 4] for i in range(count)]), jnp.float32).T)
    scores = np.full(count, -np.inf, np.float32)
    scores[::2] = np.random.default_rng(0).permutation(len(scores[::2]))
    kept = jax.jit(partial(non_max_suppression, max_overlap=0.0, top_k=900))(boxes, scores)
    want = []
    is_free = np.isfinite(scores)
    for index in np.argsort(-scores, stable=True):
        if is_free[index]:
            want.append(int(index))
            is_free[max(index - 3, 0) : index + 4] = False
    assert kept.indices[: len(want)].tolist() == want[:900]
    assert kept.found == min(len(want), MAX_FOUND)


def test_batches_on_devices_keep_what_single_runs_keep():
    boxes, scores = column(12)
    batch = jnp.stack([scores, scores.at[::2].set(-jnp.inf)])
    run = jax.vmap(lambda scores: non_max_suppression(boxes, scores, max_overlap=0.0, top_k=7))
    mesh = Mesh(jax.devices()[:1], "n")
    for check_vma in (True, False):
        spec = PartitionSpec("n")
        kept = jax.jit(jax.shard_map(run, mesh=mesh, in_specs=spec, out_specs=spec, check_vma=check_vma))(batch)
        assert kept.indices.tolist() == [[0, 1, 2, 3, 4, 5, 6], [1, 3, 5, 7, 9, 11, -1]]
        assert kept.found.tolist() == [12, 6]


def test_gradients_pass_by():
    boxes, scores = column(5)

    def best_score(scores, y):
        kept = non_max_suppression(boxes._replace(y=y), scores, max_overlap=0.0, top_k=2)
        return scores[kept.indices[0]] * kept.found.astype(scores.dtype)

    gradients = jax.grad(best_score, (0, 1))(scores, boxes.y)
    assert [gradient.tolist() for gradient in gradients] == [[5, 0, 0, 0, 0], [0] * 5]
