"""Layers as pairs of pure functions, put together into networks whose every stage has a name.

net = Chain(Conv(8, 3), Activation(jax.nn.relu), MaxPool(), Flatten(), Dense(2))
params = net.init(key, (28, 28, 1))        # {"conv1": {"kernel": ..., "bias": ...}, "dense1": {...}}
scores = net.apply(params, image)          # one image; jax.vmap gives batches
maps = net.stages(params, image)           # {"conv1": ..., "relu1": ..., "max_pool1": ..., ...}
"""

import collections
import dataclasses
import functools
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
from jax import lax
from jax.nn.initializers import Initializer
from jaxtyping import Array, Float

from . import matching, pooling
from ._dtypes import accumulation_dtype
from ._padding import explicit_padding
from ._typing import Padding, Pair
from ._validation import as_floats, as_pair, as_shape, check_int, check_number
from .convolution import conv

Params = dict[str, Any]
Shape = tuple[int, ...]
# A dict that keeps its order through jit and vmap, which sort the keys of plain ones.
Stages = collections.OrderedDict[str, Array]
Intercept = Callable[[str, Array], Array]  # of a stage's name and output
TINY = 1e-12  # lest a constant kernel be divided by 0
he_normal = jax.nn.initializers.he_normal()


def identity(name: str, value: Array) -> Array:
    """An `intercept` that changes nothing."""
    return value


@dataclasses.dataclass(frozen=True)
class Layer:
    """A layer or a whole network: two pure functions, and a name for its stage.

    `init(key, shape)` makes the parameters for images of that shape, a nested dict of arrays (empty if there are none).
    `apply(params, image, *, train=False, key=None)` computes the output for one image.
    `apply_with_intermediates`, for layers made of layers, is `apply` that returns all named stages in order, the output last; it may
    take `intercept` as `stages` does.
    """

    init: Callable[[Array, Shape], Params]
    apply: Callable[..., Array]
    name: str = "layer"
    apply_with_intermediates: Callable[..., Stages] | None = None

    def stages(
        self,
        params: Params,
        image: Float[Array, "..."],
        *,
        train: bool = False,
        key: Array | None = None,
        intercept: Intercept = identity,
    ) -> Stages:
        """Every stage's output by name, in order; those of a nested network as "residual1/conv1".

        What `intercept(name, value)` returns takes the place of that stage's output, for the stages after it too. It is
        asked about a layer made of layers and about its last part, and not about the statistics that BatchNorm shows.

        >>> net = Chain(MaxPool(), Flatten())
        >>> image = jnp.ones((4, 4, 1))
        >>> twice = net.stages({}, image, intercept=lambda name, value: 2 * value if name == "max_pool1" else value)
        >>> twice["flatten1"]
        Array([2., 2., 2., 2.], dtype=float32)
        """
        if self.apply_with_intermediates is not None:
            options = (
                {} if intercept is identity else {"intercept": intercept}
            )  # `apply_with_intermediates` of others may not know of it
            return self.apply_with_intermediates(params, image, train=train, key=key, **options)
        return Stages({self.name: intercept(self.name, self.apply(params, image, train=train, key=key))})


def Conv(
    features: int,
    kernel_size: int | Sequence[int] = 3,
    *,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    dilation: int | Sequence[int] = 1,
    groups: int = 1,
    use_bias: bool = True,
    standardize: bool = False,
    kernel_init: Initializer = he_normal,
    method: str = "auto",
) -> Layer:
    """A convolution layer: `conv` with learned kernels (h, w, C, features) and one bias each. Options as in `conv`.

    With `standardize` every kernel is used less its mean and over its standard deviation, both of its h w C numbers
    (Qiao et al., "Weight Standardization", 2019); a normalising layer should follow.

    >>> net = Conv(4, 3)
    >>> jax.tree.map(jnp.shape, net.init(jax.random.key(0), (8, 8, 1)))
    {'bias': (4,), 'kernel': (3, 3, 1, 4)}
    """
    features, groups, dilation = (
        check_int("features", features),
        check_int("groups", groups),
        as_pair("dilation", dilation),
    )
    (rows, columns), stride = _windows("kernel_size", kernel_size, stride, padding)
    if features % groups:
        raise ValueError(f"groups: expected a divisor of the {features} features, got {groups}")

    sliding = functools.partial(conv, stride=stride, padding=padding, dilation=dilation, groups=groups, method=method)

    def setup(key: Array, shape: Shape) -> Params:
        channels = _image_shape("Conv", shape)[2]
        if channels % groups:
            raise ValueError(f"groups: expected a divisor of the {channels} channels, got {groups}")
        if standardize and rows * columns * channels == groups:
            raise ValueError("standardize: expected kernels of several numbers, got one, whose deviation is 0")
        params = {"kernel": kernel_init(key, (rows, columns, channels // groups, features), jnp.float32)}
        return params | ({"bias": jnp.zeros(features, jnp.float32)} if use_bias else {})

    def apply(params: Params, image: Array, **_: Any) -> Array:
        kernel = params["kernel"]
        if standardize:
            wide = kernel.astype(accumulation_dtype(kernel.dtype))
            centred = wide - jnp.mean(wide, (0, 1, 2), keepdims=True)
            deviation = lax.rsqrt(jnp.mean(centred * centred, (0, 1, 2), keepdims=True) + TINY)
            kernel = (centred * deviation).astype(kernel.dtype)
        out = sliding(image, kernel)
        return out + params["bias"][None, None, :] if use_bias else out

    return Layer(setup, apply, "conv")


def Match(
    features: int,
    kernel_size: int | Sequence[int] = 3,
    *,
    score: Callable[..., Array] = matching.match,
    learn: Mapping[str, float] | None = None,
    stride: int | Sequence[int] = 1,
    padding: Padding = "VALID",
    kernel_init: Initializer | None = None,
) -> Layer:
    """A bank of learned features compared by a score: `match`, or another of `cnn_jax.matching`.

    Features (h, w, C, features) start uniform in [-1, 1], unless `kernel_init` says otherwise. With `match` and images in
    [-1, 1], scores stay there while the features do; with `cosine`, `zncc` and `sharpened_cosine` they always do.

    `learn` names positive numbers among the score's options and where they start: one for each feature is learned, as
    its logarithm. This is the sharpened cosine similarity layer:

    >>> net = Match(4, 3, score=matching.sharpened_cosine, learn={"p": 2.0, "q": 0.1})
    >>> params = net.init(jax.random.key(0), (8, 8, 1))
    >>> jax.tree.map(jnp.shape, params)
    {'features': (3, 3, 1, 4), 'log_p': (4,), 'log_q': (4,)}
    >>> net.apply(params, jnp.ones((8, 8, 1))).shape
    (6, 6, 4)
    """
    features, learn = check_int("features", features), {} if learn is None else learn
    (rows, columns), stride = _windows("kernel_size", kernel_size, stride, padding)
    if not callable(score):
        raise TypeError(f"score: expected a function such as cnn_jax.match, got {score!r}")
    if not isinstance(learn, Mapping):
        raise TypeError(f"learn: expected a dict of names and positive numbers, got {learn!r}")
    starts = {
        name: check_number(f"learn[{name!r}]", value, "a finite number above 0", lambda value: value > 0)
        for name, value in learn.items()
    }

    def setup(key: Array, shape: Shape) -> Params:
        full = (rows, columns, _image_shape("Match", shape)[2], features)
        bank = kernel_init(key, full, jnp.float32) if kernel_init else jax.random.uniform(key, full, jnp.float32, -1, 1)
        logs = {f"log_{name}": jnp.full(features, math.log(start), jnp.float32) for name, start in starts.items()}
        return {"features": bank} | logs

    def apply(params: Params, image: Array, **_: Any) -> Array:
        def one(feature: Array, learned: dict[str, Array]) -> Array:
            return score(image, feature, stride=stride, padding=padding, **learned)

        learned = {name: jnp.exp(params[f"log_{name}"]) for name in starts}
        return jax.vmap(one, in_axes=(-1, 0), out_axes=-1)(params["features"], learned)

    return Layer(setup, apply, "match")


def Dense(features: int, *, use_bias: bool = True, kernel_init: Initializer = he_normal) -> Layer:
    """Votes: each of the outputs is a weighted sum of all inputs, a vector (put `Flatten` before it), plus a bias.

    >>> net = Dense(2)
    >>> net.apply(net.init(jax.random.key(0), (5,)), jnp.zeros(5))
    Array([0., 0.], dtype=float32)
    """
    features = check_int("features", features)

    def setup(key: Array, shape: Shape) -> Params:
        shape = as_shape(shape)
        if len(shape) != 1:
            raise ValueError(f"Dense: expected a vector, got shape {shape}; put Flatten or GlobalAvgPool before it")
        return {"kernel": kernel_init(key, (*shape, features), jnp.float32)} | (
            {"bias": jnp.zeros(features, jnp.float32)} if use_bias else {}
        )

    def apply(params: Params, vector: Array, **_: Any) -> Array:
        vector, kernel = as_floats(vector=vector, kernel=params["kernel"])
        if vector.shape != kernel.shape[:1]:
            raise ValueError(f"vector: expected shape {kernel.shape[:1]}, got {vector.shape}")
        out = jnp.dot(vector, kernel, preferred_element_type=accumulation_dtype(kernel.dtype)).astype(kernel.dtype)
        return out + params["bias"] if use_bias else out

    return Layer(setup, apply, "dense")


def MaxPool(window: int | Sequence[int] = 2, stride: int | Sequence[int] = 2, *, padding: Padding = "VALID") -> Layer:
    """`max_pool` as a layer."""
    return _pool("max_pool", pooling.max_pool, window, stride, padding)


def AvgPool(window: int | Sequence[int] = 2, stride: int | Sequence[int] = 2, *, padding: Padding = "VALID") -> Layer:
    """`avg_pool` as a layer."""
    return _pool("avg_pool", pooling.avg_pool, window, stride, padding)


def MaxAbsPool(
    window: int | Sequence[int] = 2, stride: int | Sequence[int] = 2, *, padding: Padding = "VALID"
) -> Layer:
    """`max_abs_pool` as a layer."""
    return _pool("max_abs_pool", pooling.max_abs_pool, window, stride, padding)


def GlobalAvgPool() -> Layer:
    """`global_avg_pool` as a layer: an image becomes a vector, one number a channel."""
    return _plain("global_avg_pool", pooling.global_avg_pool)


def Flatten() -> Layer:
    """Lays the pixels of all channels out as one vector, in reading order."""
    return _plain("flatten", jnp.ravel)


def Activation(fn: Callable[[Array], Array]) -> Layer:
    """Any function of an array, usually elementwise, such as `jax.nn.relu`; the stage bears the function's name.

    >>> Activation(jax.nn.relu).apply({}, jnp.array([-1.0, 2.0]))
    Array([0., 2.], dtype=float32)
    """
    if not callable(fn):
        raise TypeError(f"fn: expected a function of an array, got {fn!r}")
    return _plain(getattr(fn, "__name__", "activation"), fn)


def Dropout(rate: float) -> Layer:
    """In training, sets values to 0 with probability `rate` and scales the others by 1 / (1 - rate); needs a key."""
    rate = check_number("rate", rate, "a number of at least 0 and less than 1", lambda rate: 0 <= rate < 1)

    def apply(params: Params, image: Array, *, train: bool = False, key: Array | None = None) -> Array:
        if not train:
            return image
        if key is None:
            raise ValueError("key: Dropout needs one when train=True, got None")
        kept = jax.random.bernoulli(key, 1 - rate, image.shape)
        return jnp.where(kept, image / (1 - rate), 0)

    return Layer(_no_params, apply, "dropout")


def Chain(*layers: Layer) -> Layer:
    """Layers one after the other. Stages and parameters are named by kind and number: "conv1", "relu1", "conv2".

    Raises a ValueError naming the stages when `params` belong to another network.

    >>> net = Chain(Conv(2), Activation(jax.nn.relu), MaxPool(), Flatten(), Dense(2))
    >>> params = net.init(jax.random.key(0), (6, 6, 1))
    >>> {name: stage.shape for name, stage in net.stages(params, jnp.ones((6, 6, 1))).items()}
    {'conv1': (4, 4, 2), 'relu1': (4, 4, 2), 'max_pool1': (2, 2, 2), 'flatten1': (8,), 'dense1': (2,)}
    """
    named = _number(layers)

    def setup(key: Array, shape: Shape) -> Params:
        params, out = {}, jax.ShapeDtypeStruct(as_shape(shape), jnp.float32)
        for i, (name, layer) in enumerate(named.items()):
            own = layer.init(jax.random.fold_in(key, i), out.shape)
            out = jax.eval_shape(layer.apply, own, out)
            params |= {name: own} if own else {}
        return params

    def apply_with_intermediates(
        params: Params, image: Array, *, train: bool = False, key: Array | None = None, intercept: Intercept = identity
    ) -> Stages:
        if not isinstance(params, Mapping):
            raise TypeError(f"params: expected a dict, got {type(params).__name__}; apply takes (params, image)")
        if not params.keys() <= named.keys():
            raise ValueError(f"params: expected stages among {list(named)}, got {list(params)}")
        stages = Stages()
        for i, (name, layer) in enumerate(named.items()):
            own = None if key is None else jax.random.fold_in(key, i)
            within = (
                identity
                if layer.apply_with_intermediates is None or intercept is identity
                else functools.partial(_intercept_within, intercept, name)
            )
            try:
                inner = layer.stages(params.get(name, {}), image, train=train, key=own, intercept=within)
            except KeyError as error:
                raise ValueError(f"params: expected {error} for stage {name!r}, got {params.get(name, {})}") from error
            if layer.apply_with_intermediates is not None:
                stages |= Stages({f"{name}/{part}": value for part, value in inner.items()})
            stages[name] = image = intercept(name, _last(inner))
        return stages

    return Layer(setup, _output_of(apply_with_intermediates), "chain", apply_with_intermediates)


def Residual(*layers: Layer) -> Layer:
    """The input plus what the layers make of it, which must have its shape; a ValueError says when it has not.

    >>> net = Residual(Conv(1, 3, padding="SAME"))
    >>> net.apply(net.init(jax.random.key(0), (4, 4, 1)), jnp.ones((4, 4, 1))).shape
    (4, 4, 1)
    """
    body = Chain(*layers)

    def apply_with_intermediates(
        params: Params, image: Array, *, train: bool = False, key: Array | None = None, intercept: Intercept = identity
    ) -> Stages:
        stages = body.stages(params, image, train=train, key=key, intercept=intercept)
        change = _last(stages)
        if change.shape != image.shape:
            raise ValueError(f"Residual: expected layers that keep the shape {image.shape}, got {change.shape}")
        return stages | Stages(sum=intercept("sum", image + change))

    return Layer(body.init, _output_of(apply_with_intermediates), "residual", apply_with_intermediates)


def _number(layers: Sequence[Layer]) -> dict[str, Layer]:
    if not layers:
        raise ValueError("layers: expected at least one, got none")
    seen, named = collections.Counter(), {}
    for layer in layers:
        if not isinstance(layer, Layer):
            raise TypeError(f"layers: expected Layer, got {layer!r}")
        seen[layer.name] += 1
        named[f"{layer.name}{seen[layer.name]}"] = layer
    return named


def _intercept_within(intercept: Intercept, name: str, part: str, value: Array) -> Array:
    return intercept(f"{name}/{part}", value)


def _last(stages: Stages) -> Array:
    return next(reversed(stages.values()))


def _output_of(apply_with_intermediates: Callable[..., Stages]) -> Callable[..., Array]:
    def apply(params: Params, image: Array, *, train: bool = False, key: Array | None = None) -> Array:
        return _last(apply_with_intermediates(params, image, train=train, key=key))

    return apply


def _plain(name: str, fn: Callable[[Array], Array]) -> Layer:
    return Layer(_no_params, lambda params, image, **_: fn(image), name)


def _no_params(key: Array, shape: Shape) -> Params:
    return {}


def _windows(
    name: str, window: int | Sequence[int], stride: int | Sequence[int], padding: Padding
) -> tuple[Pair, Pair]:
    """A window and a stride as pairs; a wrong padding shows here too, and not with the first image."""
    window, stride = as_pair(name, window), as_pair("stride", stride)
    explicit_padding(padding, window, window, stride, names=("image", name))
    return window, stride


def _pool(
    name: str, fn: Callable[..., Array], window: int | Sequence[int], stride: int | Sequence[int], padding: Padding
) -> Layer:
    window, stride = _windows("window", window, stride, padding)
    return _plain(name, functools.partial(fn, window=window, stride=stride, padding=padding))


def _image_shape(layer: str, shape: Shape) -> Shape:
    shape = as_shape(shape)
    if len(shape) != 3 or math.prod(shape) == 0:
        raise ValueError(f"{layer}: expected an image shape (H, W, C), got {shape}")
    return shape
