"""Can a network small enough for a microcontroller read digits and clothes as well as people do?

Claim: on one CPU core 79,690 parameters reach 99.66 % on MNIST's test set after nine minutes (mean of three seeds, from
99.64 to 99.69), and 93.63 % on Fashion-MNIST's (one seed); people reach about 99.8 % and 83.5 %. 6,480 parameters reach
99.59 % on MNIST after 17 minutes (mean of three seeds, from 99.51 to 99.63). With sharpened cosine similarity 1,351
parameters reach 99.26 % on MNIST, and 2,730 reach 90.75 % on Fashion-MNIST (one seed each).
Evidence: the metrics.json of `--seeds 3`, `--net compact --seeds 3`, `--data fashion-mnist` and the two cosine
networks' `--net`, run on an AMD EPYC. People: widely quoted after LeCun et al. (1995) for digits; Xiao, Rasul and
Vollgraf (2017) for clothes.

"standard" has up to 100,000 parameters, "compact" up to 7,000; "cosine" and "wide-cosine" have 1,351 and 2,730, in
layers of sharpened cosine similarity in place of convolutions. Every image is read from nine places, a pixel apart.
Options were chosen on a sixth of the training set that is kept apart (`--choose`). One more recipe for MNIST, 32 epochs
of "standard" with elastic deformation, was read on the test set too, and dropped: its three networks together reach
99.55 %.

    python -m experiments.digits                              train the standard network on MNIST
    python -m experiments.digits --data fashion-mnist --net wide-cosine
    python -m experiments.digits --seeds 3                    three networks: their mean, and all of them together
    python -m experiments.digits --smoke                      a first try on generated pictures, in seconds
"""

import dataclasses
import functools
from pathlib import Path
from typing import Any, Literal, NamedTuple

import jax
import numpy as np
import optax
import optax.contrib
import tyro

import cnn_jax
from cnn_jax import augment, nets, optimizers
from cnn_jax.data import mnist
from cnn_jax.data.dataset import LabeledImages, train_val_split

from ._lib import classification, cli, runner

CHOOSE = 1 / 6
SMOKE_BATCH = 20


class Recipe(NamedTuple):
    """How a network is made and trained."""

    net: str
    options: dict[str, Any]
    epochs: int
    kernels: float
    """Highest learning rate of Muon, for kernels."""
    others: float
    """Highest learning rate of Adam, for all else."""
    variation: float
    """Strength of the augmentation."""


RECIPES = {
    "standard": Recipe("digit_net", {"features": ((32,), (48, 64), (64,))}, 15, 0.05, 0.0125, 1.0),
    "compact": Recipe("digit_net", {"features": ((8,), (11, 11, 11), (14, 14))}, 40, 0.05, 0.0125, 0.8),
    "cosine": Recipe("cosine_net", {"features": (5, 8, 5)}, 60, 0.1, 0.03, 0.5),
    "wide-cosine": Recipe("cosine_net", {"features": (8, 12, 8)}, 60, 0.1, 0.03, 0.5),
}
VIEWS = [classification.moved(down, right) for down in (0, 1, -1) for right in (0, 1, -1)]


@dataclasses.dataclass(frozen=True)
class Digits(runner.RunOptions):
    """Train on MNIST or a set like it, and report on its test set."""

    data: Literal["mnist", "fashion-mnist", "emnist-letters"] = "mnist"
    """The data set."""
    net: Literal["standard", "compact", "cosine", "wide-cosine"] = "standard"
    """The network."""
    seeds: int = 1
    """Networks to train, each from a seed of its own."""
    epochs: int | None = None
    """Passes over the training set; by default as the network needs."""
    batch_size: int = 128
    """Images for each step."""
    seed: int = 0
    """The first seed."""
    choose: bool = False
    """Report on a sixth of the training set, kept apart, in place of the test set: for choosing options."""
    smoke: bool = False
    """A few steps on generated pictures, to see that everything works."""
    out: Path = Path("runs/digits")
    """Folder for report.html, the models, metrics.json and the figures."""
    data_dir: Path | None = None
    """Folder with downloaded data sets, in place of CNN_JAX_DATA."""


def optimizer(recipe: Recipe, steps: int) -> optax.GradientTransformation:
    """Muon for kernels and Adam for the rest, warmed up and then down along a cosine; the mean of the way is kept."""

    def rate(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, steps // 20, steps)

    muon = optax.contrib.muon(
        rate(recipe.kernels),
        muon_weight_dimension_numbers=optimizers.muon_dimension_numbers,
        adam_learning_rate=rate(recipe.others),
    )
    return optimizers.with_ema(muon, decay=0.999, steps=steps)


def slanted(key: jax.Array, image: jax.Array, *, strength: float) -> jax.Array:
    """Turns, scales, shears and moves an image a little, as handwriting varies."""
    ranges = {"angle": 0.2 * strength, "scale": 0.15 * strength, "shear": 0.2 * strength, "shift": 2 * strength}
    return augment.affine(key, image, **ranges)


def shifted(key: jax.Array, image: jax.Array, *, strength: float) -> jax.Array:
    """Moves an image a little: clothes are photographed straight."""
    return augment.shift(key, image, max_shift=round(2 * strength))


def load(config: Digits) -> tuple[LabeledImages, LabeledImages]:
    """What to train on and what to report on."""
    if config.smoke:
        return classification.generated(4 * SMOKE_BATCH, 28, 1, mnist.CATALOG[config.data].classes)
    train = mnist.load(config.data, data_dir=config.data_dir)
    if config.choose:
        return train_val_split(train, CHOOSE)
    return train, mnist.load(config.data, "test", data_dir=config.data_dir)


def main(config: Digits, run: runner.Run) -> dict[str, Any]:
    """Trains the networks, reads the test set, writes everything; returns what metrics.json holds."""
    seeds = range(config.seed, config.seed + cli.check_positive("--seeds", config.seeds))
    batch_size = cli.check_positive("--batch-size", config.batch_size)
    batch_size = SMOKE_BATCH if config.smoke else batch_size
    train, test = load(config)
    recipe = RECIPES[config.net]
    epochs = (
        2 if config.smoke else cli.check_positive("--epochs", recipe.epochs if config.epochs is None else config.epochs)
    )
    steps = classification.steps_in(epochs, train, batch_size)
    options = recipe.options | {"classes": len(train.classes)}
    net = getattr(nets, recipe.net)(**options)
    vary = functools.partial(shifted if config.data == "fashion-mnist" else slanted, strength=recipe.variation)

    def train_one(name: str, key: jax.Array) -> runner.TrainingResult:
        return classification.train(
            run,
            name,
            net,
            train,
            optimizer=optimizer(recipe, steps),
            steps=steps,
            batch_size=batch_size,
            augment=classification.vary(vary),
            key=key,
        )

    first, scores, metrics = classification.train_each(
        seeds,
        run.out,
        train_one,
        lambda path, trained: cnn_jax.save_params(path, trained.params, net=recipe.net, options=options),
        lambda trained: classification.reader(net, trained.params, VIEWS)(test.images),
        test.labels,
    )
    together = np.mean(scores, axis=0)
    metrics |= {
        "together": classification.accuracy(together, test.labels),
        "parameters": classification.learned_parameters(first.params),
        "epochs": epochs,
        "config": runner.options_as_text(config),
    }
    pictures = "generated pictures" if config.smoke else config.data
    line = (
        f"{pictures}, {config.net}, {metrics['parameters']:,} parameters: {100 * metrics['accuracy']:.2f} % "
        f"(mean of {len(seeds)}), {100 * metrics['together']:.2f} % together"
    )
    came_out = [line, classification.by_seed(seeds, metrics)]
    classification.write_up("digits", config, run.out, first, test, together, metrics, came_out)
    print(f"{line}; everything is in {config.out}")
    return metrics


if __name__ == "__main__":
    cli.run_script(lambda: runner.run_experiment(tyro.cli(Digits, description=__doc__), main))
