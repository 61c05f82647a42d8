"""Explanations of a network: intermediate activations, maximally activating patches and attribution maps.

Most functions take a network `net` of `cnn_jax.layers`, its `params` and one image (H, W, C). They are pure and run
under `jax.jit` and `jax.vmap`. Attribution maps explain one logit: that of `label`, by default of the class with the
largest logit. They have one value per pixel, (H, W); only `integrated_gradients` keeps the channels.

>>> import functools
>>> import jax
>>> from cnn_jax import nets
>>> net = nets.xo_net(features=(2, 2))
>>> params = net.init(jax.random.key(0), (8, 8, 1))
>>> images = jax.random.normal(jax.random.key(1), (5, 8, 8, 1))
>>> jax.jit(jax.vmap(functools.partial(occlusion, net, params)))(images).shape
(5, 8, 8)
"""

from ._activations import TopPatches, kernels_as_images, stages, top_activating_patches
from ._attribution import grad_cam, integrated_gradients, occlusion, saliency, smooth_grad
from .receptive_field import receptive_field

__all__ = [
    "TopPatches",
    "grad_cam",
    "integrated_gradients",
    "kernels_as_images",
    "occlusion",
    "receptive_field",
    "saliency",
    "smooth_grad",
    "stages",
    "top_activating_patches",
]
