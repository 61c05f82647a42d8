"""How soon does a network classify ten kinds of color pictures as well as people do?

Claim: an accuracy of 94.62 % on the test set after 46 minutes on 2 CPU cores and 0.57 PFLOP (one seed), with test-time
augmentation by six views. One person reached about 94 % (Karpathy, "Lessons learned from manually classifying
CIFAR-10", 2011).
Evidence: metrics.json of the first command below, run on an AMD EPYC.

The network and the recipe follow airbench94_muon (Jordan, github.com/KellerJordan/cifar10-airbench), the fastest
CIFAR-10 training of its time on a GPU, as pure functions: a first layer that whitens patches, Muon on kernels of a
fixed norm, mirrored images in every second epoch, and six views at test time. The main differences: it trains for 16
epochs, not 8; pixels are in [-1, 1], not normalized for each channel; the whitening uses the covariance about the mean;
and predictions are the mean of the views' log-probabilities, not of their logits, which ranks the classes alike.
Learning rates, weight decay and label smoothing are those of airbench94_muon, whose author reports accuracy on the test
set. `--choose` reports on a validation set, a tenth of the training set, for the choice of other options.

    python -m experiments.cifar10                  train once, report on the test set
    python -m experiments.cifar10 --seeds 20       the mean of twenty trainings
    python -m experiments.cifar10 --smoke          a test run on synthetic images, in seconds
"""

import dataclasses
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import optax
import optax.contrib
from jaxtyping import Array, Float

import cnn_jax
from cnn_jax import augment, initializers, nets, optimizers
from cnn_jax.data import cifar
from cnn_jax.data.dataset import LabeledImages, train_val_split
from cnn_jax.training import Augment, Batch

from ._lib import classification, classification_report, cli, predict, runner, tta
from ._lib.synthetic import synthetic_dataset

SIZE = 32  # rows and columns of an image
SHAPE = (SIZE, SIZE, 3)
VALIDATION = 0.1  # of the training set, for --choose
SMOKE_IMAGES = 200
SMOKE_BATCH_SIZE = 50
SMOKE_EPOCHS = 2
SMOKE_FEATURES = (8, 8, 8)
WHITENING_IMAGES = 5000  # images that the kernels of the first layer are computed from
WHITENING_EPOCHS = 3  # epochs in which the biases of the first layer are trained
WHITENING_EPSILON = 1.2e-4  # for pixels in [-1, 1]; 5e-4 for pixels of standard deviation 1
LABEL_SMOOTHING = 0.2
CROP_BORDER = 2  # pixels of reflected border that random crops are taken from
MOMENTUM = 0.85
# Learning rates at the start, and weight decay, for a loss that is summed over the batch.
KERNEL_LEARNING_RATE = 0.24
BIAS_LEARNING_RATE = 0.053
DENSE_LEARNING_RATE = 0.67
WEIGHT_DECAY = 2e-6  # for each image
# The image itself has as much weight as both shifts together.
TTA_VIEWS = tuple(tta.shifted_view(by, by, mirrored=mirrored) for by in (0, 1, -1) for mirrored in (False, True))
TTA_WEIGHTS = (0.5, 0.5, 0.25, 0.25, 0.25, 0.25)


@dataclasses.dataclass(frozen=True)
class Cifar10(runner.RunOptions):
    """Train on CIFAR-10, and report the accuracy on its test set."""

    seeds: int = 1
    """Number of networks to train, with consecutive seeds."""
    epochs: int = 16
    """Passes over the training set."""
    batch_size: int = 2000
    """Images in each step."""
    features: tuple[int, int, int] = (64, 256, 256)
    """Number of features of the three blocks."""
    bfloat16: bool = False
    """Compute in bfloat16, which is faster on accelerators."""
    seed: int = 0
    """The first seed."""
    choose: bool = False
    """Report on a validation set, a tenth of the training set, instead of the test set: for choosing options."""
    smoke: bool = False
    """Test that everything works: a few steps of a small network on synthetic images."""
    out: Path = Path("runs/cifar10")
    """Folder for report.html, the models, metrics.json and the figures."""
    data_dir: Path | None = None
    """Folder with cifar-10-batches-bin or its archive; by default the folder in CNN_JAX_DATA."""


def optimizer(steps: int, steps_per_epoch: int, batch_size: int) -> optax.GradientTransformation:
    """Muon for kernels, kept at a fixed norm; SGD with Nesterov momentum for others; learning rates fall linearly."""

    def sgd(learning_rate: float, until: int = steps) -> optax.GradientTransformation:
        return optax.chain(
            optax.scale(float(batch_size)),
            optax.add_decayed_weights(WEIGHT_DECAY * batch_size / learning_rate),
            optax.sgd(optax.linear_schedule(learning_rate, 0.0, until), momentum=MOMENTUM, nesterov=True),
        )

    muon = optax.chain(
        optax.contrib.scale_by_muon(
            ns_steps=3, beta=0.6, nesterov=True, weight_dimension_numbers=optimizers.muon_dimension_numbers
        ),
        optax.scale_by_learning_rate(optax.linear_schedule(KERNEL_LEARNING_RATE, 0.0, steps)),
        optax.stateless(normalize_kernels),
    )
    rules: dict[Hashable, optax.GradientTransformation] = {
        "kernel": muon,
        "dense": sgd(DENSE_LEARNING_RATE),
        "bias": sgd(BIAS_LEARNING_RATE),
        "whitening bias": sgd(BIAS_LEARNING_RATE, WHITENING_EPOCHS * steps_per_epoch),
        "fixed": optax.set_to_zero(),
    }
    return optax.partition(rules, lambda params: jax.tree_util.tree_map_with_path(optimizer_rule, params))


def normalize_kernels(updates: Any, params: Any) -> Any:
    """Adds a step to the updates of kernels (h, w, C, K) that scales the kernels to the norm sqrt(K)."""

    def add_scaling(update: jax.Array, kernel: jax.Array) -> jax.Array:
        return update + kernel * (jnp.sqrt(kernel.shape[3]) / jnp.linalg.norm(kernel) - 1)

    return jax.tree.map(add_scaling, updates, params)


def optimizer_rule(path: tuple[Any, ...], leaf: jax.Array) -> str:
    """The name of the rule of `optimizer` for a parameter, by its path in the parameters and its shape."""
    layer, name = (entry.key for entry in path[-2:])
    if layer == "conv1":
        return "whitening bias" if name == "bias" else "fixed"
    if name in ("mean", "variance"):
        return "fixed"
    if name == "bias":
        return "bias"
    return "kernel" if leaf.ndim == 4 else "dense"


def make_augment(flip_key: jax.Array) -> Augment:
    """Augmentation for `fit`: mirrors every image in every second epoch and crops it from its reflected border."""

    def augment_image(image_flip_key: jax.Array, key: jax.Array, image: jax.Array, epoch: jax.Array) -> jax.Array:
        return augment.crop(key, augment.alternating_flip(image_flip_key, image, epoch=epoch), border=CROP_BORDER)

    def augment_batch(key: jax.Array, batch: Batch) -> tuple[jax.Array, jax.Array]:
        flip_keys = jax.vmap(jax.random.fold_in, (None, 0))(flip_key, batch.indices)
        keys = jax.random.split(key, len(batch.images))
        pixels = classification.to_pixels(batch.images)
        return jax.vmap(augment_image, (0, 0, 0, None))(flip_keys, keys, pixels, batch.epoch), batch.labels

    return augment_batch


def load(config: Cifar10) -> tuple[LabeledImages, LabeledImages]:
    """The training set and the set to report on."""
    if config.smoke:
        return synthetic_dataset(SMOKE_IMAGES, SIZE, 3, cifar.CLASSES)
    train = cifar.load(data_dir=config.data_dir)
    if config.choose:
        return train_val_split(train, VALIDATION)
    return train, cifar.load("test", data_dir=config.data_dir)


def make_trainer(
    config: Cifar10, run: runner.Run, net: cnn_jax.Layer, train: LabeledImages, epochs: int, batch_size: int
) -> Callable[[str, jax.Array], runner.TrainingResult]:
    """The function that trains the network from a key and keeps its checkpoints under a name."""
    steps = classification.training_steps(epochs, train, batch_size)
    whitening_kernel = whiten(train)

    def train_one(name: str, key: jax.Array) -> runner.TrainingResult:
        init_key, flip_key, train_key = jax.random.split(key, 3)
        params = net.init(init_key, SHAPE)
        params["conv1"]["kernel"] = whitening_kernel
        return classification.train(
            run,
            name,
            net,
            train,
            params=params,
            optimizer=optimizer(steps, steps // epochs, batch_size),
            loss=classification.label_smoothing_loss(len(train.classes), LABEL_SMOOTHING),
            steps=steps,
            batch_size=batch_size,
            augment=make_augment(flip_key),
            compute_dtype=jnp.bfloat16 if config.bfloat16 else None,
            key=train_key,
        )

    return train_one


def whiten(train: LabeledImages) -> Float[Array, "h w C K"]:
    """The kernels of the first layer, which whiten the patches of the first images."""
    return initializers.whitening(classification.to_pixels(train.images[:WHITENING_IMAGES]), epsilon=WHITENING_EPSILON)


def main(config: Cifar10, run: runner.Run) -> dict[str, Any]:
    """Trains the networks, evaluates them, writes everything; returns the metrics."""
    seeds = range(config.seed, config.seed + cli.check_positive("--seeds", config.seeds))
    epochs = SMOKE_EPOCHS if config.smoke else cli.check_positive("--epochs", config.epochs)
    batch_size = SMOKE_BATCH_SIZE if config.smoke else cli.check_positive("--batch-size", config.batch_size)
    train, test = load(config)
    options: dict[str, Any] = {"features": SMOKE_FEATURES if config.smoke else config.features}
    net = nets.airbench_net(**options)
    results = classification.train_seeds(
        seeds,
        run.out,
        train_one=make_trainer(config, run, net, train, epochs, batch_size),
        save_one=lambda path, trained: cnn_jax.save_params(path, trained.params, net="airbench_net", options=options),
        predict_test=lambda trained: predict.predictor(net, trained.params, TTA_VIEWS, TTA_WEIGHTS)(test.images),
        labels=test.labels,
    )
    steps = classification.training_steps(epochs, train, batch_size)
    metrics = results.metrics | {
        "parameters": trained_parameters(results.first.params),
        "petaflop": 6e-15 * cnn_jax.cost(net, SHAPE).multiply_adds * steps * batch_size,
        "config": runner.options_as_text(config),
    }
    report_results(config, run.out, seeds, results, test, metrics)
    return metrics


def trained_parameters(params: Any) -> int:
    """The number of parameters that the optimizer changes: without the whitening kernels and BatchNorm's statistics."""
    rules = jax.tree_util.tree_map_with_path(optimizer_rule, params)
    leaves = zip(jax.tree.leaves(params), jax.tree.leaves(rules), strict=True)
    return sum(leaf.size for leaf, rule in leaves if rule != "fixed")


def report_results(
    config: Cifar10,
    out: Path,
    seeds: Sequence[int],
    results: classification.SeedResults,
    test: LabeledImages,
    metrics: dict[str, Any],
) -> None:
    """Writes metrics.json, figures and report.html; prints the result."""
    line = (
        f"{metrics['parameters']:,} parameters, {metrics['petaflop']:.2f} PFLOP: "
        f"accuracy {100 * metrics['accuracy']:.2f} % (mean of {len(seeds)})"
    )
    classification_report.write_report(
        "cifar10",
        config,
        out,
        trained=results.first,
        test=test,
        log_probs=results.log_probs[0],
        metrics=metrics,
        results=[line, classification_report.accuracy_by_seed(seeds, metrics)],
    )
    print(f"{line}; everything is in {config.out}")


if __name__ == "__main__":
    cli.run_script(lambda: runner.run_experiment(cli.parse_options(Cifar10, "cifar10", __doc__), main))
