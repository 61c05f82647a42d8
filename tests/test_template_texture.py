"""Texture of templates by level and by place."""

import jax
import numpy as np
import pytest

from cnn_jax._search_inputs import as_stacks
from cnn_jax._template_texture import measure_texture
from tests.helpers.oracles import noise

BOARD = np.indices((64, 64)).sum(axis=0) % 2 * 1.0  # its texture vanishes at half the resolution
CORNERS = np.zeros((32, 32), np.float32)  # with no texture in the inscribed disk
for rows in (slice(5), slice(-5, None)):
    for columns in (slice(5), slice(-5, None)):
        CORNERS[rows, columns] = 1


def stack(feature, mask=None, image=(200, 300)):
    (only,) = as_stacks(feature, mask, image)
    return only


@pytest.mark.parametrize(("feature", "levels"), [(noise(0, 64, 64), 0), (BOARD, 2), (noise(0, 20, 20), 0)])
def test_levels_on_which_texture_vanishes_are_left_out(feature, levels):
    assert measure_texture(stack(feature)).omitted_levels == levels


def test_masked_pixels_have_no_texture():
    feature = np.where(np.arange(64) < 32, BOARD, 40.0)
    mask = np.broadcast_to(np.arange(64) < 32, feature.shape)
    assert measure_texture(stack(feature)).omitted_levels == 0
    assert measure_texture(stack(feature, mask)).omitted_levels == 2


def test_a_disk_may_show_none_of_a_template():
    assert measure_texture(stack(noise(0, 32, 32))).is_in_disk
    assert not measure_texture(stack(CORNERS)).is_in_disk
    assert not measure_texture(stack(np.stack([noise(0, 32, 32), CORNERS]))).is_in_disk


def test_texture_is_not_looked_for_in_traced_templates():
    seen = []

    @jax.jit
    def look(feature):
        seen.append(measure_texture(stack(feature)))

    look(BOARD)
    assert seen == [(0, True)]
