"""Features of one group in arrays of one shape."""

import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax._feature_groups import as_bank, join_features
from cnn_jax._search_inputs import as_stacks
from tests.helpers.oracles import noise

IMAGE = (50, 60)


def join(features, mask=None, frame=(5, 6), image=IMAGE):
    return join_features(as_stacks(features, mask, image), frame)


def test_features_have_their_pixels_in_the_top_left_of_the_frame():
    features = [noise(0, 5, 4), noise(1, 3, 6)]
    joined = join(features)
    assert joined.indices.tolist() == [0, 1]
    assert joined.masks is None
    for feature, template in zip(features, joined.templates, strict=True):
        np.testing.assert_array_equal(template[: feature.shape[0], : feature.shape[1]], feature)
        assert np.count_nonzero(template) == np.count_nonzero(feature)


def test_a_single_array_is_neither_copied_nor_moved():
    bank = noise(0, 3, 5, 6)
    assert join(bank).templates is bank


@pytest.mark.parametrize("has_channels", [True, False])
def test_masks_of_pixels_count_for_all_channels(has_channels):
    features = noise(0, 2, 5, 6, 3)
    mask = noise(1, 2, 5, 6) > 0
    given = np.repeat(mask[..., None], 3, axis=-1) if has_channels else mask
    templates, masks = as_bank(join(features, given, image=(*IMAGE, 3)), (3,))
    assert masks is not None
    assert templates.shape == masks.shape == (2, 5, 6, 3)
    np.testing.assert_array_equal(masks[..., 0], mask)
    np.testing.assert_array_equal(masks[..., 2], mask)


def test_integers_become_floats_and_masks_bools():
    templates, masks = as_bank(join(np.ones((5, 6), np.uint8), np.full((5, 6), 2, np.uint8)), ())
    assert masks is not None
    assert (templates.shape, templates.dtype, masks.dtype) == ((1, 5, 6), jnp.float32, jnp.bool_)
