import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from jax.test_util import check_grads

from cnn_jax.warping import affine, affine_matrix, elastic, resample
from tests.helpers import oracles
from tests.helpers.oracles import noise, seeds, whole

each_shape = pytest.mark.parametrize("shape", [(6, 7), (5, 4, 1), (4, 9, 3)])
jit_affine, jit_elastic, jit_resample = (jax.jit(f, static_argnames="fill") for f in (affine, elastic, resample))


@each_shape
@given(seed=seeds, fill=st.sampled_from([-1.0, 0.0, 2.5]))
def test_resample_equals_the_reference(shape, seed, fill):
    image = noise(seed, *shape)
    rng = np.random.default_rng(seed)
    rows, columns = rng.uniform(-3, 11, (2, 3, 5)).astype(np.float32)
    whole_numbers = rng.random((3, 5)) < 0.3  # on pixels and on the border, where one of the two weights is zero
    rows, columns = np.where(whole_numbers, rows.round(), rows), np.where(whole_numbers, columns.round(), columns)
    got = jit_resample(image, rows, columns, fill=fill)
    np.testing.assert_allclose(got, oracles.resample(image, rows, columns, fill), atol=1e-5)


@each_shape
def test_resample_reads_pixels_exactly(shape):
    image = noise(0, *shape)
    np.testing.assert_array_equal(resample(image, *np.indices(shape[:2])), image)


def random_matrix(seed):
    """A random affine map that moves an image by a few pixels."""
    rng = np.random.default_rng(seed)
    return np.concatenate([np.eye(2) + rng.uniform(-0.3, 0.3, (2, 2)), rng.uniform(-2, 2, (2, 1))], 1)


@each_shape
@given(seed=seeds)
def test_affine_equals_the_reference(shape, seed):
    image, matrix = noise(seed, *shape), random_matrix(seed)
    middle = (np.array(shape[:2]) - 1) / 2
    positions = np.moveaxis(np.indices(shape[:2]), 0, -1) - middle - matrix[:, 2]
    rows, columns = np.moveaxis(positions @ np.linalg.inv(matrix[:, :2]).T + middle, -1, 0)
    got = jit_affine(image, matrix.astype(np.float32))
    np.testing.assert_allclose(got, oracles.resample(image, rows, columns), atol=1e-4)


@given(seed=seeds)
def test_the_inverse_undoes_an_affine_map(seed):
    # Bilinear interpolation is exact on a plane, so that only the border is lost.
    image = np.tensordot(np.random.default_rng(seed).normal(size=2), np.indices((21, 21)), 1).astype(np.float32)
    matrix = random_matrix(seed)
    linear = np.linalg.inv(matrix[:, :2])
    inverse = np.concatenate([linear, -linear @ matrix[:, 2:]], 1)
    moved = jit_affine(image, matrix.astype(np.float32))
    restored = jit_affine(moved, inverse.astype(np.float32))
    np.testing.assert_allclose(restored[8:13, 8:13], image[8:13, 8:13], atol=1e-3)


@pytest.mark.parametrize("turns", [-1, 0, 1, 2, 3, 4])
@pytest.mark.parametrize("shape", [(6, 6), (7, 7, 2)])
def test_quarter_turns_equal_rot90(turns, shape):
    image = noise(0, *shape)
    got = jit_affine(image, affine_matrix(angle=turns * np.pi / 2))
    np.testing.assert_allclose(got, np.rot90(image, turns), atol=1e-5)


def shifted(image, down, right, fill):
    """The image shifted by whole pixels, with `fill` where none came from."""
    out = np.full_like(image, fill)
    height, width = image.shape[:2]
    rows, columns = np.arange(height) - down, np.arange(width) - right
    y, x = (rows >= 0) & (rows < height), (columns >= 0) & (columns < width)
    out[np.ix_(y, x)] = np.roll(image, (down, right), (0, 1))[np.ix_(y, x)]
    return out


@pytest.mark.parametrize("move", [(0, 0), (2, -1), (-3, 0), (0, 9)])
@pytest.mark.parametrize("fill", [-1.0, 0.5])
def test_whole_shifts_equal_roll_and_fill(move, fill):
    image = noise(0, 6, 7, 2)
    down, right = move
    expected = shifted(image, down, right, fill)
    np.testing.assert_array_equal(jit_affine(image, affine_matrix(shift=move), fill=fill), expected)
    offsets = np.broadcast_to(-np.array(move, np.float32), (3, 4, 2))
    np.testing.assert_allclose(jit_elastic(image, offsets, fill=fill), expected, atol=1e-4)


@given(seed=seeds)
def test_affine_matrix_scales_shears_turns_and_shifts(seed):
    angle, shear, sy, sx, dy, dx = np.random.default_rng(seed).uniform(-2, 2, 6)
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    expected = np.c_[turn @ [[1, 0], [-shear, 1]] @ np.diag([sy, sx]), [dy, dx]]
    got = affine_matrix(angle=angle, shear=shear, scale=(sy, sx), shift=(dy, dx))
    np.testing.assert_allclose(got, expected, atol=1e-5)


def test_directions_are_as_seen():
    right, up = np.array([0, 1], np.float32), np.array([-1, 0], np.float32)
    np.testing.assert_allclose(affine_matrix(angle=np.pi / 2)[:, :2] @ right, up, atol=1e-6)
    np.testing.assert_array_equal(affine_matrix(shear=0.5)[:, :2] @ up, up + 0.5 * right)
    np.testing.assert_array_equal(affine_matrix(scale=3)[:, :2] @ up, 3 * up)


def test_affine_matrix_defaults_to_doing_nothing():
    image = noise(0, 4, 5)
    np.testing.assert_array_equal(affine(image, affine_matrix()), image)


@pytest.mark.parametrize(("shape", "grid"), [((6, 7), (3, 4)), ((9, 5, 2), (2, 5))])
def test_elastic_equals_the_reference(shape, grid):
    image, offsets = noise(0, *shape), noise(1, *grid, 2)
    down, across = (oracles.cubic_weights(size, cells) for size, cells in zip(shape, grid, strict=False))
    rows, columns = np.einsum("yg,xh,ghm->myx", down, across, offsets) + np.indices(shape[:2])
    np.testing.assert_allclose(elastic(image, offsets), oracles.resample(image, rows, columns), atol=1e-4)


@pytest.mark.parametrize("warp", [jit_affine, jit_elastic])
def test_vmap_equals_a_loop(warp):
    images = noise(0, 3, 6, 5, 2)
    matrices = np.stack([random_matrix(seed) for seed in range(3)])
    warps = {jit_affine: matrices, jit_elastic: noise(1, 3, 3, 3, 2)}[warp].astype(np.float32)
    looped = [warp(image, argument) for image, argument in zip(images, warps, strict=True)]
    np.testing.assert_allclose(jax.vmap(warp)(images, warps), jnp.stack(looped), atol=1e-5)


def test_gradients_of_resample_agree_with_differences():
    image = noise(0, 4, 5)
    # Between pixels, as derivatives jump at pixels; some positions are outside of the image.
    rng = np.random.default_rng(1)
    rows, columns = rng.integers(-2, 6, (2, 2, 3)) + rng.uniform(0.2, 0.8, (2, 2, 3))
    with jax.enable_x64(True):
        arguments = image.astype(np.float64), rows, columns
        check_grads(jit_resample, arguments, order=1, modes=["fwd"], rtol=1e-5)
        check_grads(jit_resample, arguments, order=2, modes=["rev"], rtol=1e-5)


def test_gradients_of_affine_agree_with_differences():
    image = noise(0, 4, 5)
    with jax.enable_x64(True):
        check_grads(jit_affine, (image.astype(np.float64), random_matrix(5)), order=1, modes=["rev"], rtol=1e-4)


@pytest.mark.parametrize("dtype", ["uint8", "bool", "int32"])
def test_integers_and_bools_become_float32(dtype):
    image = (np.arange(9).reshape(3, 3) % 2).astype(dtype)
    for got in (affine(image, np.eye(2, 3, dtype=int)), elastic(image, np.zeros((2, 2, 2), int))):
        assert got.dtype == jnp.float32
        np.testing.assert_array_equal(got, image.astype(np.float32))


def test_float64_stays_float64():
    image, rows, columns = noise(0, 4, 5).astype(np.float64), np.array([[0.3, 2.1]]), np.array([[1.7, 3.6]])
    with jax.enable_x64(True):
        got = resample(image, rows, columns)
    assert got.dtype == np.float64
    np.testing.assert_allclose(got, oracles.resample(image, rows, columns), rtol=1e-12)


@pytest.mark.parametrize("warp", [affine, elastic])
def test_coordinates_of_a_wide_16_bit_image_are_exact(warp):
    image = jnp.asarray(whole(0, 1, 300), jnp.bfloat16)
    identity = {affine: jnp.eye(2, 3, dtype=jnp.bfloat16), elastic: jnp.zeros((2, 2, 2), jnp.bfloat16)}[warp]
    np.testing.assert_array_equal(warp(image, identity).astype(jnp.float32), image.astype(jnp.float32))


def test_a_matrix_without_inverse_gives_nan_or_fill():
    got = np.asarray(affine(noise(0, 3, 4), np.zeros((2, 3)), fill=7.0))
    assert (np.isnan(got) | (got == 7)).all()


IMAGE, POSITIONS = np.ones((4, 5)), np.ones((2, 3))
ERRORS = [
    (resample, (IMAGE[0], POSITIONS, POSITIONS), ValueError, r"image: .*\(H, W\) or \(H, W, C\), got \(5,\)"),
    (resample, (IMAGE[:0], POSITIONS, POSITIONS), ValueError, "image: .*empty"),
    (resample, (IMAGE.astype(np.complex64), POSITIONS, POSITIONS), TypeError, "image: .*got complex64"),
    (resample, (IMAGE, POSITIONS[0], POSITIONS[0]), ValueError, r"rows: .*\(h, w\), got \(3,\)"),
    (resample, (IMAGE, POSITIONS, POSITIONS[:1]), ValueError, r"columns: .*\(2, 3\), got \(1, 3\)"),
    (resample, (IMAGE, POSITIONS, POSITIONS.astype(np.complex64)), TypeError, "columns: .*got complex64"),
    (affine, (IMAGE[0], np.eye(2, 3)), ValueError, "image: expected shape"),
    (affine, (IMAGE, np.eye(3)), ValueError, r"matrix: .*\(2, 3\), got \(3, 3\)"),
    (affine, (IMAGE, "turn"), TypeError, "matrix: .*got str"),
    (elastic, (IMAGE[None, None], np.zeros((2, 2, 2))), ValueError, "image: expected shape"),
    (elastic, (IMAGE, np.zeros((2, 2))), ValueError, r"offsets: .*, got \(2, 2\)"),
    (elastic, (IMAGE, np.zeros((2, 2, 3))), ValueError, r"offsets: .*, got \(2, 2, 3\)"),
    (elastic, (IMAGE, np.zeros((0, 2, 2))), ValueError, "offsets: .*empty"),
]


@pytest.mark.parametrize(("warp", "arguments", "error", "message"), ERRORS)
def test_warps_name_the_wrong_argument(warp, arguments, error, message):
    with pytest.raises(error, match=message):
        warp(*arguments)


@pytest.mark.parametrize("wrong", [{"scale": (1, 2, 3)}, {"shift": 3.0}, {"shift": (1, 2, 3)}, {"angle": (1, 2)}])
def test_affine_matrix_names_the_wrong_argument(wrong):
    with pytest.raises((ValueError, TypeError), match=next(iter(wrong))):
        affine_matrix(**wrong)
