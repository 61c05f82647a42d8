"""Checks an environment that has only the wheel: cnn_jax imports, and errors name the extra of each missing package."""

import importlib
from pathlib import Path

import jax
import jax.numpy as jnp

import cnn_jax

NEEDS = {
    "cnn_jax.figures": ("matplotlib", "figures"),
    "cnn_jax.data.image_io": ("PIL", "data"),
    "cnn_jax.data.letters": ("scipy|PIL", "data"),
    "cnn_jax.data.mnist": ("pooch", "data"),
    "cnn_jax.data.cifar": ("pooch", "data"),
    "cnn_jax.data.omniglot": ("pooch|PIL", "data"),
    "cnn_jax.data.image_folder": ("pooch|PIL", "data"),
    "cnn_jax.data.stream": ("grain|PIL|absl|pooch", "stream|data"),
}


def missing(work) -> str:
    try:
        work()
    except ImportError as error:
        return str(error)
    raise AssertionError("expected an ImportError that names an extra")


def main() -> None:
    print(f"cnn_jax {cnn_jax.__version__} from {Path(cnn_jax.__file__).parent}")
    assert cnn_jax.match(jnp.ones((4, 4)), jnp.ones((2, 2))).shape == (3, 3)
    net = cnn_jax.Chain(cnn_jax.Flatten(), cnn_jax.Dense(2))
    params = net.init(jax.random.key(0), (2, 2, 1))
    errors = {
        name: missing(lambda name=name: importlib.import_module(name))
        for name in NEEDS
        if name != "cnn_jax.data.stream"
    }
    errors["save_params"] = missing(lambda: cnn_jax.save_params("model.safetensors", params))
    errors["load_params"] = missing(lambda: cnn_jax.load_params("model.safetensors"))
    errors["export"] = missing(lambda: cnn_jax.export(net, params, (2, 2, 1)))
    for name, message in errors.items():
        print(f"{name}: {message}")
        assert "pip install 'cnn_jax[" in message, message
    for name, (packages, extras) in NEEDS.items():
        if name in errors:
            assert any(f"needs {package}" in errors[name] for package in packages.split("|")), errors[name]
            assert any(f"cnn_jax[{extra}]" in errors[name] for extra in extras.split("|")), errors[name]


if __name__ == "__main__":
    main()
