"""A layer: its options, and pure functions that make its parameters and compute its output."""

import dataclasses
import functools
import inspect
from collections.abc import Hashable
from typing import Never, dataclass_transform

import jax
import numpy as np
from jaxtyping import Array, ArrayLike, Shaped

from ._contents import ComparedByContents, find_key
from ._errors import describe
from ._layer_functions import Apply, ApplyWithIntermediates, Init, Intercept, Stages, identity
from ._layer_options import from_pickle, text_of, to_pickle
from ._object_checks import check_key
from ._params import Params, check_is_dict, check_params
from ._programs import MEMORY, shared_memory, shared_method
from ._typing import Shape
from ._validation import as_shape


@dataclass_transform(frozen_default=True, eq_default=False, field_specifiers=(dataclasses.field,))
class Layer(ComparedByContents):
    """A layer or a whole network: the pure functions `init`, `apply` and `stages`, and its kind.

    The layers of this package are subclasses: frozen dataclasses of their options. A layer of your own is made of two
    functions. Layers print their options, compare by them and can be hashed, copied and pickled. Functions
    and arrays compare by identity; functions are pickled by name.

    Args:
      init: `init(key, shape)` makes the parameters for inputs of that shape: a nested dict of float32 arrays, empty for
        a layer without parameters.
      apply: `apply(params, image, *, train=False, key=None)` computes the output for one input, a JAX or a NumPy array;
        `jax.vmap` gives batches. `train` and `key` are passed by name. `key` is the random key for training.
      name: the kind of layer; `Chain` numbers layers of one kind: "conv1", "conv2".
      apply_with_intermediates: for a layer with inner layers, `apply` that returns all intermediate activations by
        name, the output last. It gets `intercept`, as in `stages`, only when the caller of `stages` passes one.

    >>> from cnn_jax.layers import Chain, Flatten
    >>> def init(key, shape):
    ...     return {"factor": 2.0 * jax.numpy.ones(shape[-1])}
    >>> def apply(params, image, *, train=False, key=None):
    ...     return image * params["factor"][None, None]
    >>> net = Chain(Layer(init, apply, "scale"), Flatten())
    >>> net.apply(net.init(jax.random.key(0), (1, 2, 1)), jax.numpy.ones((1, 2, 1)))
    Array([2., 2.], dtype=float32)
    >>> net
    Chain(
      Layer(init, apply, name='scale'),
      Flatten(),
    )
    """

    name: str
    has_intermediates: bool = False

    def __init__(
        self,
        init: Init,
        apply: Apply,
        name: str = "layer",
        apply_with_intermediates: ApplyWithIntermediates | None = None,
    ) -> None:
        self._set(_init=init, _apply=apply, name=name)
        if apply_with_intermediates is not None:
            self._set(has_intermediates=True, _apply_with_intermediates=apply_with_intermediates)

    def __init_subclass__(cls, *, init: bool = True) -> None:
        dataclasses.dataclass(frozen=True, init=init, eq=False, repr=False)(cls)

    @shared_method
    def init(self, key: Array, shape: Shape) -> Params:
        """The initial parameters for inputs of one shape, drawn with a key.

        Raises:
          TypeError: the key is not one random key.

        >>> from cnn_jax.layers import Dense
        >>> Dense(2).init(jax.random.key(0), (3,))["bias"]
        Array([0., 0.], dtype=float32)
        """
        shape = as_shape(shape)
        check_key(key)
        return self._init(key, shape)

    @shared_method
    def apply(
        self, params: Params, image: Shaped[ArrayLike, "..."], *, train: bool = False, key: Array | None = None
    ) -> Array:
        """The output for one input.

        Args:
          params: the parameters, of the structure and the shapes that `init` makes; the dtypes may differ.
          image: one input; `jax.vmap` gives batches.
          train: whether the layer is being trained, for dropout and batch statistics.
          key: the random key for training.

        Raises:
          ValueError: parameters of another network; the message names the first array of another shape.
          TypeError: parameters that are not a dict.

        >>> from cnn_jax.layers import Flatten
        >>> Flatten().apply({}, jax.numpy.ones((2, 1, 1)))
        Array([1., 1.], dtype=float32)
        """
        self._check_params(params, image)
        return self._apply(params, image, train=train, key=key)

    @shared_method
    def stages(
        self,
        params: Params,
        image: Shaped[ArrayLike, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        """Intermediate activations by name, in the order of computation, the output last.

        Args:
          params, image, train, key: as in `apply`.
          intercept: `intercept(name, value)` returns the activation that replaces `value`, also for all later layers
            (activation patching). It is called for composite layers and for their inner layers, but not for the
            statistics of `BatchNorm`.

        Returns:
          An ordered dict. The activations of inner layers have paths as names: "residual1/conv1".

        Raises:
          ValueError, TypeError: as `apply`.

        >>> from cnn_jax.layers import Chain, Flatten, MaxPool
        >>> import jax.numpy as jnp
        >>> net = Chain(MaxPool(), Flatten())
        >>> list(net.stages({}, jnp.ones((4, 4, 1))))
        ['max_pool1', 'flatten1']
        >>> def double_pool(name, value):
        ...     return 2 * value if name == "max_pool1" else value
        >>> net.stages({}, jnp.ones((4, 4, 1)), intercept=double_pool)["flatten1"]
        Array([2., 2., 2., 2.], dtype=float32)
        """
        if not self.has_intermediates:
            output = self.apply(params, image, train=train, key=key)
            return Stages({self.name: intercept(self.name, output)})
        self._check_params(params, image)
        if intercept is identity:
            return self._apply_with_intermediates(params, image, train=train, key=key)
        return self._apply_with_intermediates(params, image, train=train, key=key, intercept=intercept)

    def _init(self, key: Array, shape: Shape) -> Params:
        """The parameters; a subclass without parameters inherits this."""
        return {}

    def _apply(
        self, params: Params, image: Shaped[ArrayLike, "..."], *, train: bool = False, key: Array | None = None
    ) -> Array:
        """The output; a subclass with intermediate activations inherits this."""
        return output_of(self._apply_with_intermediates(params, image, train=train, key=key))

    def _apply_with_intermediates(
        self,
        params: Params,
        image: Shaped[ArrayLike, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        """The intermediate activations; a subclass with `has_intermediates` defines this instead of `_apply`."""
        raise NotImplementedError

    def _check_params(self, params: Params, image: Shaped[ArrayLike, "..."]) -> None:
        """Raises for parameters that are not of the shapes that `init` makes."""
        if type(self) is not Layer:  # the parameters of users' functions may be any pytree
            check_is_dict(params)
        shape = np.shape(image)
        check_params(params, param_shapes_or_none(self, shape), shape)

    def _set(self, **options: object) -> None:
        """Sets attributes while the layer is made."""
        vars(self).update(options)

    def __setattr__(self, name: str, value: object) -> Never:
        raise dataclasses.FrozenInstanceError(f"cannot assign to field {name!r}")

    def __delattr__(self, name: str) -> Never:
        raise dataclasses.FrozenInstanceError(f"cannot delete field {name!r}")

    def __eq__(self, other: object) -> bool:
        return self is other or (isinstance(other, Layer) and self._key == other._key)

    def __hash__(self) -> int:
        return self._hash

    @functools.cached_property
    def _hash(self) -> int:
        return hash(self._key)

    @functools.cached_property
    def _key(self) -> Hashable:
        """What equal layers have in common. Options that may change, such as an array, count by identity."""
        return type(self), tuple((name, find_key(value)) for name, value in _state(self).items())

    def __copy__(self) -> "Layer":
        return self

    def __deepcopy__(self, memo: dict[int, object]) -> "Layer":
        return self

    def __getstate__(self) -> dict[str, object]:
        return {name: to_pickle(value) for name, value in _state(self).items()}

    def __setstate__(self, state: dict[str, object]) -> None:
        self._set(**{name: from_pickle(value) for name, value in state.items()})

    def __repr__(self) -> str:
        options = []
        for name, parameter in inspect.signature(type(self)).parameters.items():
            text = text_of(vars(self).get(name, vars(self).get(f"_{name}")))
            if parameter.default is parameter.empty and parameter.kind is not parameter.KEYWORD_ONLY:
                options.append(text)
            elif text != text_of(parameter.default):
                options.append(f"{name}={text}")
        return f"{type(self).__name__}({', '.join(options)})"


def param_shapes(net: Layer, shape: Shape) -> Params:
    """Shapes and dtypes of a network's parameters for images of this shape, without computing them."""
    memory = shared_memory(net)
    if shape not in memory:
        shapes = jax.eval_shape(lambda: net.init(jax.random.key(0), shape))
        # The sharding is that of the mesh under which this is called first.
        memory[shape] = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), shapes)
    return memory[shape]


def param_shapes_or_none(net: Layer, shape: Shape) -> Params | None:
    """`param_shapes`, or None where `init` refuses the shape, or cannot be traced: then `apply` has the say."""
    try:
        return param_shapes(net, shape)
    except Exception:  # a user's `init` may raise anything
        return None


def output_of(stages: Stages) -> Array:
    """The last of the intermediate activations."""
    return next(reversed(stages.values()))


def _state(layer: Layer) -> dict[str, object]:
    """What makes a layer: all attributes but those that are computed from others."""
    return {name: value for name, value in vars(layer).items() if name not in ("_hash", "_key", MEMORY)}


def check_net(net: object) -> None:
    """Raises a TypeError unless `net` is a Layer.

    >>> check_net({"dense1": {}})
    Traceback (most recent call last):
    TypeError: net: expected a Layer, such as a Chain, got dict
    """
    if not isinstance(net, Layer):
        raise TypeError(f"net: expected a Layer, such as a Chain, got {describe(net)}")
