"""Kernel initializers: identity kernels and kernels that whiten patches."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from cnn_jax.initializers import dirac, whitening
from tests.helpers import oracles
from tests.helpers.oracles import noise

KEY = jax.random.key(0)


@pytest.mark.parametrize(("size", "padding"), [((3, 3), ((1, 1), (1, 1))), ((1, 5), ((0, 0), (2, 2)))])
@pytest.mark.parametrize(("channels", "features"), [(3, 3), (3, 5), (4, 2)])
def test_dirac_copies_channels(size, padding, channels, features):
    image = noise(0, 6, 7, channels)
    out = oracles.conv(image, dirac()(KEY, (*size, channels, features)), padding=padding)
    copied = min(channels, features)
    np.testing.assert_array_equal(out[..., :copied], image[..., :copied])
    assert not np.any(out[..., copied:])


def test_dirac_leaves_the_other_kernels_to_its_fallback():
    fallback = jax.nn.initializers.he_normal()
    kernel = dirac(fallback)(KEY, (3, 3, 2, 6))
    np.testing.assert_array_equal(kernel[..., 2:], fallback(KEY, (3, 3, 2, 6))[..., 2:])
    assert dirac()(KEY, (3, 3, 2, 2), jnp.bfloat16).dtype == jnp.bfloat16


def patches_of(images):
    """All 2x2 patches of images (N, H, W, C) as rows."""
    channels = images.shape[-1]
    patches = np.stack([oracles.patches(image, (2, 2)) for image in images])
    return patches.reshape(-1, 4 * channels).astype(np.float64)


def test_white_patches_are_uncorrelated_and_of_one_size():
    images = noise(0, 40, 12, 12, 3)
    images = images + np.roll(images, 1, 1) + images[..., ::-1]  # neighbors and channels alike
    kernel = np.asarray(whitening(images, 2, epsilon=1e-6))
    assert kernel.shape == (2, 2, 3, 24)
    np.testing.assert_array_equal(kernel[..., 12:], -kernel[..., :12])
    out = patches_of(images) @ kernel[..., :12].reshape(12, 12)
    covariance = np.cov(out.T)
    with_variance = np.diag(covariance) > 0.5  # channels that copy each other leave nothing to whiten
    count = with_variance.sum()
    assert count >= 6
    np.testing.assert_allclose(covariance[np.ix_(with_variance, with_variance)], np.eye(count), atol=0.02)


@pytest.mark.parametrize("epsilon", [1.2e-4, 0.5])
def test_white_patches_have_the_variance_they_should_whatever_their_mean(epsilon):
    images = noise(0, 200, 3, 3, 1) / 2 + 3
    images[:, 1:] += images[:, :-1]
    options = {} if epsilon == 1.2e-4 else {"epsilon": epsilon}
    kernel = np.asarray(whitening(images, **options), np.float64)[..., :4].reshape(4, 4)
    covariance = np.cov(patches_of(images).T, bias=True)
    values = np.linalg.eigvalsh(covariance)[::-1]
    np.testing.assert_allclose(kernel.T @ covariance @ kernel, np.diag(values / (values + epsilon)), atol=1e-5)


def test_whitening_takes_sizes_of_two_numbers():
    assert whitening(noise(0, 5, 4, 6, 2), (1, 3)).shape == (1, 3, 2, 12)


def test_bad_arguments():
    with pytest.raises(ValueError, match=r"size: expected at most the size of the images \(4, 5\), got \(5, 5\)"):
        whitening(jnp.zeros((1, 4, 5, 1)), 5)
    with pytest.raises(ValueError, match="images: expected shape"):
        whitening(jnp.zeros((4, 5, 1)))
    for epsilon in (0, -1, np.nan, np.inf):
        with pytest.raises(ValueError, match="epsilon: expected a finite number above 0"):
            whitening(jnp.zeros((1, 4, 5, 1)), epsilon=epsilon)
    with pytest.raises(ValueError, match=r"dirac: expected a kernel \(h, w, C, K\), got shape \(4, 2\)"):
        dirac()(KEY, (4, 2))
