"""Export of a network as a StableHLO program, which JAX runs without this package."""

import jax
import jax.export
import numpy as np

from ._layer import check_net
from ._optional import optional_import
from ._validation import as_positive_shape
from .layers import Layer, Params

PLATFORMS = ("cpu", "cuda", "tpu")


def export(net: Layer, params: Params, shape: tuple[int, ...]) -> bytes:
    """A network and its parameters as one program, serialized StableHLO for CPU, CUDA and TPU.

    The program takes float32 images (N, *shape), for any N, and returns the outputs of `net.apply` for each of them.

    Args:
      net: the network.
      params: its parameters.
      shape: the shape of one image.

    Returns:
      The serialized program, which `jax.export.deserialize` reads.

    Raises:
      ValueError: the network does not take images of that shape, or the statistics of a BatchNorm were never taken.
      TypeError: net is not a Layer, shape is not a sequence of ints.
      ImportError: FlatBuffers is not installed.

    Notes:
      The program uses XLA's convolutions. JAX guarantees that it stays readable for six months, so also save the
      parameters with `save_params`.

    Example:

    >>> from cnn_jax.layers import Chain, Dense, Flatten
    >>> net = Chain(Flatten(), Dense(3))
    >>> program_bytes = export(net, net.init(jax.random.key(0), (4, 4, 1)), (4, 4, 1))

    Elsewhere, where only JAX is installed:

    >>> program = jax.export.deserialize(bytearray(program_bytes))
    >>> program.call(np.zeros((2, 4, 4, 1), np.float32)).shape
    (2, 3)
    """
    with optional_import(needed_by="export", extra="io"):
        import flatbuffers  # noqa: F401  # JAX imports it to serialize
    check_net(net)
    sizes = as_positive_shape(shape)
    (batch_size,) = jax.export.symbolic_shape("N")
    images = jax.ShapeDtypeStruct((batch_size, *sizes), np.float32)
    constants = jax.tree.map(np.asarray, params)  # on no mesh: the program runs on one device
    program = jax.jit(lambda images: jax.vmap(net.apply, (None, 0))(constants, images))
    return bytes(jax.export.export(program, platforms=PLATFORMS)(images).serialize())
