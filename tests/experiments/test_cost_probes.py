"""experiments._lib.cost_probes: the correlations that are timed compute what layers, gradients and scores do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import cnn_jax
from experiments._lib import cost_probes
from experiments._lib.cost_probes import Probe
from tests.helpers.oracles import noise

SAME = ((1, 1), (1, 1))


def test_probes_are_of_every_kind_and_have_several_methods():
    probes = list(cost_probes.probes())
    kinds = {probe.kind for probe in probes}
    assert kinds == {"layer", "images' gradient", "kernels' gradient", "maps"}
    assert len({str(probe) for probe in probes}) > 40


def test_the_gradients_of_a_layer_are_probes():
    shapes = (3, 6, 6, 2), (3, 3, 2, 4), (3, 6, 6, 4)
    images, kernels, cotangents = (jnp.asarray(noise(seed, *shape)) for seed, shape in enumerate(shapes))

    def layer(images, kernels):
        return jax.vmap(lambda image: cnn_jax.conv(image, kernels, padding="SAME"))(images)

    out, gradients = jax.vjp(layer, images, kernels)
    of_images, of_kernels = gradients(cotangents)
    layer_probe = Probe("layer", (3, 6, 6, 2), (3, 3, 2, 4), SAME)
    image_probe = Probe("images' gradient", (3, 6, 6, 4), (3, 3, 4, 2), SAME)
    kernel_probe = Probe("kernels' gradient", (2, 6, 6, 3), (6, 6, 3, 4), SAME)
    got = cost_probes.correlation(layer_probe, "conv")(images, kernels)
    np.testing.assert_allclose(got, out, atol=1e-5)
    turned = kernels[::-1, ::-1].swapaxes(2, 3)
    got = cost_probes.correlation(image_probe, "conv")(cotangents, turned)
    np.testing.assert_allclose(got, of_images, atol=1e-5)
    got = cost_probes.correlation(kernel_probe, "im2col")(images, cotangents)
    np.testing.assert_allclose(got.transpose(1, 2, 0, 3), of_kernels, atol=1e-4)


@pytest.mark.parametrize("kind", ["layer", "kernels' gradient"])
def test_methods_that_are_predicted_to_be_slow_are_left_out(kind):
    probe = Probe(kind, (2, 9, 9, 4), (3, 3, 4, 8))
    everything = cost_probes.calls(probe, np.inf)
    assert set(everything) >= {"conv", "fft"}
    assert len(cost_probes.calls(probe, 1.0)) == 1
    results = [call() for call in everything.values()]
    for result in results[1:]:
        np.testing.assert_allclose(result, results[0], atol=1e-4)
