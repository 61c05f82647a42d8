"""Kernels to start from."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference import noise

from cnn_jax.convolution import conv
from cnn_jax.initializers import dirac, whitening

KEY = jax.random.key(0)


@pytest.mark.parametrize(("size", "border"), [((3, 3), ((1, 1), (1, 1))), ((1, 5), ((0, 0), (2, 2)))])
@pytest.mark.parametrize(("channels", "features"), [(3, 3), (3, 5), (4, 2)])
def test_dirac_hands_channels_on(size, border, channels, features):
    image, kernel = noise(0, 6, 7, channels), dirac()(KEY, (*size, channels, features))
    out = conv(image, kernel, padding=border)
    same = min(channels, features)
    np.testing.assert_array_equal(out[..., :same], image[..., :same])
    assert not np.any(out[..., same:])


def test_dirac_leaves_the_others_to_another():
    rest = jax.nn.initializers.he_normal()
    kernel = dirac(rest)(KEY, (3, 3, 2, 6))
    np.testing.assert_array_equal(kernel[..., 2:], rest(KEY, (3, 3, 2, 6))[..., 2:])
    assert dirac()(KEY, (3, 3, 2, 2), jnp.bfloat16).dtype == jnp.bfloat16


def test_white_patches_are_uncorrelated_and_of_one_size():
    images = noise(0, 40, 12, 12, 3)
    images = images + np.roll(images, 1, 1) + images[..., ::-1]  # neighbours and channels alike
    kernel = whitening(images, 2, epsilon=1e-6)
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
    out = np.asarray(jax.vmap(conv, (0, None))(images, kernel))[..., :12].reshape(-1, 12)
    covariance = np.cov(out.T)
    seen = np.diag(covariance) > 0.5  # channels that copy each other leave nothing to whiten
    assert seen.sum() >= 6
    np.testing.assert_allclose(covariance[np.ix_(seen, seen)], np.eye(seen.sum()), atol=0.02)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"size: expected at most the images' \(4, 5\), got \(5, 5\)"):
        whitening(jnp.zeros((1, 4, 5, 1)), 5)
    with pytest.raises(ValueError, match="images: expected shape"):
        whitening(jnp.zeros((4, 5, 1)))
