"""Training of the network of `experiments.xo` on drawn letters, and the report on it."""

import dataclasses
import functools
import time
from pathlib import Path
from typing import Any

import jax
import optax
import optax.contrib

import cnn_jax
from cnn_jax import nets, optimizers
from cnn_jax.data import xo

from . import cli, report, runner
from .xo_compare import SIZE, compare, evaluate_omniglot, table
from .xo_figures import FIGURES, draw_figures

OUT = Path("runs/xo")
NET = "xo_net"
WARM_UP = 20  # the learning rate rises during 1 / WARM_UP of all steps
ADAM_LEARNING_RATE = 3e-3  # the highest


@dataclasses.dataclass(frozen=True)
class Train(runner.RunOptions):
    """Train on drawn letters, then compare three classifiers on new letters."""

    out: Path = OUT
    """Folder for report.html, the model, metrics.json and the figures."""
    steps: int = 2500
    """Training steps."""
    batch_size: int = 128
    """Letters drawn for each step."""
    learning_rate: float = 0.015
    """Highest learning rate of Muon; it warms up, then falls to zero along a cosine."""
    test_images: int = 10_000
    """New letters for each row of the table."""
    seed: int = 0
    """Seed of all random numbers."""
    data_dir: Path | None = None
    """Folder with downloaded data sets; by default the folder in CNN_JAX_DATA."""


def train(config: Train, run: runner.Run) -> dict[str, Any]:
    """Trains, compares, writes figures, report, model and metrics.json; returns the metrics."""
    started = time.monotonic()
    cli.check_positive("--test-images", config.test_images)
    train_key, test_key = jax.random.split(jax.random.key(config.seed))
    net = nets.xo_net()
    trained = runner.fit_with_checkpoints(
        run,
        "network",
        net,
        functools.partial(xo.draw, size=SIZE),
        optimizer=optimizer(config),
        steps=config.steps,
        batch_size=config.batch_size,
        key=train_key,
    )
    params = trained.params
    cnn_jax.save_params(run.out / "model.safetensors", params, net=NET, options={})
    comparison = compare(net, params, config.test_images, test_key)
    metrics: dict[str, Any] = {
        "accuracy": comparison.by_distortion,
        "accuracy_by_strength": comparison.by_strength,
        "omniglot": evaluate_omniglot(net, params, config.data_dir, run.out),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "training_seconds": trained.seconds,
        "resumed_after": trained.resumed_after,
        "config": runner.options_as_text(config),
    } | cli.versions()
    draw_figures(net, params, metrics, trained.history, run.out, config.seed)
    metrics["seconds"] = time.monotonic() - started
    cli.write_json(run.out / "metrics.json", metrics)
    write_report(config, run.out, metrics)
    return metrics


def write_report(config: Train, out: Path, metrics: dict[str, Any]) -> None:
    """Writes report.html and prints its results."""
    results = [
        f"Accuracy on {config.test_images:,} new letters each:",
        table(metrics["accuracy"]),
        metrics["omniglot"]["line"],
        f"{metrics['parameters']:,} parameters, {metrics['training_seconds']:.0f} s of training, "
        f"{metrics['seconds']:.0f} s in all",
    ]
    report.write_html(out, "xo", config, results, FIGURES)
    print(f"{report.as_text(results)}; everything is in {config.out}")


def optimizer(config: Train) -> optax.GradientTransformation:
    """Muon for kernels of convolutions, Adam for all other parameters; Muon needs half as many steps as Adam alone."""
    warm_up = max(config.steps // WARM_UP, 1)

    def schedule(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, max(config.steps, warm_up + 1))

    return optax.contrib.muon(
        schedule(config.learning_rate),
        muon_weight_dimension_numbers=optimizers.muon_dimension_numbers,
        adam_learning_rate=schedule(ADAM_LEARNING_RATE),
    )
