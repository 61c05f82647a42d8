"""Checks an environment that has only the wheel: cnn_jax imports, and errors name the extra of each missing package."""

import functools
import importlib
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import optax

import cnn_jax

NET = cnn_jax.Chain(cnn_jax.Flatten(), cnn_jax.Dense(2))
PARAMS = NET.init(jax.random.key(0), (2, 2, 1))
IMAGES = jnp.zeros((4, 2, 2)), jnp.arange(4) % 2
fit = functools.partial(cnn_jax.fit, NET, IMAGES, optimizer=optax.sgd(0.1), steps=1, batch_size=2, progress=False)


class Source:
    """Images for a stream."""

    size = 2
    classes = ("a", "b")

    def __len__(self) -> int:
        return 4


def stream() -> object:
    return importlib.import_module("cnn_jax.data.stream").Stream(Source())


# What needs a package that is missing here: (call, package, extra).
CALLS: list[tuple[Callable[[], object], str, str]] = [
    (lambda: cnn_jax.save_params("model.safetensors", PARAMS), "safetensors", "io"),
    (lambda: cnn_jax.load_params("model.safetensors"), "safetensors", "io"),
    (lambda: cnn_jax.export(NET, PARAMS, (2, 2, 1)), "flatbuffers", "io"),
    (lambda: fit(key=jax.random.key(0), checkpoint_dir="run"), "orbax", "train"),
    (lambda: importlib.import_module("cnn_jax.figures"), "matplotlib", "figures"),
    (lambda: importlib.import_module("cnn_jax.data.image_io"), "PIL", "data"),
    (lambda: importlib.import_module("cnn_jax.data.mnist"), "pooch", "data"),
    (lambda: importlib.import_module("cnn_jax.data.cifar"), "pooch", "data"),
    (stream, "grain", "stream"),
]


def main() -> None:
    print(f"cnn_jax {cnn_jax.__version__} from {Path(cnn_jax.__file__).parent}")
    assert cnn_jax.match(jnp.ones((4, 4)), jnp.ones((2, 2))).shape == (3, 3)
    _, history = fit(key=jax.random.key(0))
    assert history["loss"].shape == (1,)
    for call, package, extra in CALLS:
        try:
            call()
        except ImportError as error:
            message = str(error)
        else:
            raise AssertionError(f"expected an ImportError that names {package}")
        print(message)
        assert f"needs {package}: pip install 'cnn_jax[{extra}]'" in message, message
    print(f"{len(CALLS)} passed, 0 failed")


if __name__ == "__main__":
    main()
