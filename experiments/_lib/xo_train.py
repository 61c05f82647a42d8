"""How `experiments.xo` trains its network and compares it with two readers that learn nothing."""

import dataclasses
import functools
import itertools
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import optax.contrib

import cnn_jax
from cnn_jax import explain, figures, nets, optimizers
from cnn_jax.data import letters, omniglot, xo
from cnn_jax.layers import Stages
from cnn_jax.progress import Progress

from . import classification, cli, report, runner

OUT = Path("runs/xo")
SIZE = 28
BATCH = 500
DISTORTIONS = {
    "clean": (),
    "shifted": ("shift",),
    "shrunken": ("shrink",),
    "rotated": ("rotate",),
    "deformed": ("deform",),
    "all": tuple(xo.CLEAN),
}
READERS = ("whole image", "hand-made features", "trained network")
FIGURES = {
    "letters.png": "Fresh letters: as the program draws them, a row for each distortion",
    "strength.png": "Accuracy by strength: all distortions together, from none to twice what the network learned from",
    "omniglot.png": "Real drawings: Omniglot's X's and O's, as framed for the network, and what each was read as",
    "stages_X.png": "An X, stage by stage: what the network makes of one, each row on a scale of its own",
    "stages_O.png": "An O, stage by stage: what the network makes of one, each row on a scale of its own",
    "counted_X.png": "What counted for the X: how fast its score changes with each pixel (saliency, SmoothGrad; no "
    "sign), what each adds to it (integrated gradients), how much it falls where a window is covered (occlusion), "
    "and where features speak for it (Grad-CAM); orange for, purple against",
    "counted_O.png": "What counted for the O: the same five ways to ask",
    "patches.png": "What features look for: of the letters above, the patches that eight features of the second layer "
    "answer most strongly, a row each",
    **classification.TRAINING,
}
CAM_STAGE, PATCHES_STAGE = "relu3", "relu2"


@dataclasses.dataclass(frozen=True)
class Train(runner.RunOptions):
    """Train on drawn letters, then compare three readers on fresh ones."""

    out: Path = OUT
    """Folder for report.html, the model, metrics.json and the figures."""
    steps: int = 2500
    """Training steps."""
    batch_size: int = 128
    """Letters drawn for each step."""
    learning_rate: float = 0.015
    """Highest learning rate of Muon; it warms up and then falls to zero along a cosine."""
    test_images: int = 10_000
    """Fresh letters for each row of the table."""
    seed: int = 0
    """Seed of everything random."""
    data_dir: Path | None = None
    """Folder with downloaded data sets, in place of CNN_JAX_DATA."""


# The three readers, each image -> scores of X and O.


def whole_image(image: jax.Array, exemplars: jax.Array) -> jax.Array:
    """(a) Compares the whole image, pixel by pixel, with a clean X and a clean O."""
    return jax.vmap(cnn_jax.match, in_axes=(None, 0))(image, exemplars).ravel()


def pieces(exemplars: np.ndarray, size: int = 9) -> tuple[np.ndarray, np.ndarray]:
    """Hand-made features, and their letters: the clean X's crossing and arms, the clean O's sides and bends."""
    middle, reach = SIZE // 2, round(SIZE / 3)
    features, letters = [], []
    for letter, exemplar in enumerate(exemplars):
        for dy, dx in itertools.product((-1, 0, 1), repeat=2):
            far = reach if letter == 1 and 0 in (dy, dx) else round(0.7 * reach)
            top, left = middle + dy * far - size // 2, middle + dx * far - size // 2
            piece = exemplar[top : top + size, left : left + size]
            if piece.mean() > -0.7:  # of the X's sides and the O's middle next to nothing is drawn
                features.append(piece)
                letters.append(letter)
    return np.stack(features), np.array(letters)


def hand_made(image: jax.Array, features: jax.Array, letters: np.ndarray) -> jax.Array:
    """(b) Match, ReLU, pool, vote: a letter's score is the mean over its features of their best match anywhere."""
    maps = jax.nn.relu(jax.vmap(cnn_jax.match, in_axes=(None, 0))(image, features))
    pooled = jax.vmap(lambda one: cnn_jax.max_pool(one, padding="CEIL"))(maps)
    best = jnp.max(pooled, axis=(1, 2))
    return jnp.stack([jnp.mean(best[letters == letter]) for letter in range(len(xo.CLASSES))])


# (c) The network: its mean opinion of the letter as it is, mirrored and turned by quarters. An X stays an X and an O an
# O, and one view's mistakes are seldom another's.
HALVES = (lambda x: x, lambda x: x[:, ::-1], lambda x: x[:, :, ::-1], lambda x: x[:, ::-1, ::-1])
VIEWS = [*HALVES, *(lambda x, half=half: half(x).swapaxes(1, 2) for half in HALVES)]


# Training and the comparison.


def train(config: Train, run: runner.Run) -> dict[str, Any]:
    """Trains, compares, draws and writes everything; returns what metrics.json holds."""
    started = time.monotonic()
    cli.check_positive("--test-images", config.test_images)
    key = jax.random.key(config.seed)
    out = run.out
    net, options = nets.xo_net(), {}
    train_key, test_key = jax.random.split(key)
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
    cnn_jax.save_params(out / "model.safetensors", params, net="xo_net", options=options)

    rows, strengths = compare(params, net, config, test_key)
    metrics: dict[str, Any] = {
        "accuracy": rows,
        "accuracy_by_strength": strengths,
        "omniglot": read_omniglot(params, net, config.data_dir, out),
        "parameters": sum(leaf.size for leaf in jax.tree.leaves(params)),
        "training_seconds": trained.seconds,
        "resumed_after": trained.resumed_after,
        "config": runner.options_as_text(config),
    } | cli.versions()
    draw_figures(params, net, metrics, trained.history, out, config.seed)
    metrics["seconds"] = time.monotonic() - started
    cli.write_json(out / "metrics.json", metrics)
    came_out = [
        f"Read right, of {config.test_images:,} fresh letters each:",
        table(rows),
        metrics["omniglot"]["line"],
        f"{metrics['parameters']:,} parameters, {trained.seconds:.0f} s of training, {metrics['seconds']:.0f} s in all",
    ]
    report.write_html(out, "xo", config, came_out, FIGURES)
    print(f"{report.as_text(came_out)}; everything is in {config.out}")
    return metrics


def optimizer(config: Train) -> optax.GradientTransformation:
    """Muon for the kernels of convolutions, which gets as far as Adam in half the steps, and Adam for the rest."""
    warm_up = max(config.steps // 20, 1)

    def rate(peak: float) -> optax.Schedule:
        return optax.warmup_cosine_decay_schedule(0.0, peak, warm_up, max(config.steps, warm_up + 1))

    return optax.contrib.muon(
        rate(config.learning_rate),
        muon_weight_dimension_numbers=optimizers.muon_dimension_numbers,
        adam_learning_rate=rate(3e-3),
    )


def compare(params: Any, net: cnn_jax.Layer, config: Train, key: jax.Array) -> tuple[dict, dict]:
    """Accuracy of the three readers on the same fresh letters, for each distortion and by strength of all together."""
    exemplars = jnp.stack([xo.draw(key, size=SIZE, label=label, **xo.CLEAN)[0] for label in range(2)])
    features, letters = pieces(np.asarray(exemplars))
    batch = min(BATCH, config.test_images)

    @jax.jit
    def right(key: jax.Array, strengths: dict[str, jax.Array]) -> jax.Array:
        drawn, labels = jax.vmap(lambda key: xo.draw(key, size=SIZE, **strengths))(jax.random.split(key, batch))
        scores = (
            jax.vmap(whole_image, (0, None))(drawn, exemplars),
            jax.vmap(lambda image: hand_made(image, jnp.asarray(features), letters))(drawn),
            classification.opinion(net, params, classification.scaled(drawn), VIEWS),
        )
        return jnp.stack([jnp.argmax(score, axis=-1) == labels for score in scores])

    def accuracy(key: jax.Array, strengths: dict[str, float], count: int) -> dict[str, float]:
        batches = [right(own, strengths) for own in jax.random.split(key, -(-count // batch))]
        return dict(zip(READERS, np.concatenate(batches, axis=1)[:, :count].mean(axis=1).tolist(), strict=True))

    levels = np.linspace(0, 2, 9)
    keys = iter(jax.random.split(key, len(DISTORTIONS) + len(levels)))
    rows, by_strength = {}, {name: [] for name in READERS}
    with Progress("comparing", len(DISTORTIONS) + len(levels)) as bar:
        for name, distorted in DISTORTIONS.items():
            strengths = xo.CLEAN | dict.fromkeys(distorted, 1.0)
            rows[name] = accuracy(next(keys), strengths, config.test_images)
            bar.update(len(rows), name)
        for i, level in enumerate(levels, 1):
            for name, value in accuracy(
                next(keys), dict.fromkeys(xo.CLEAN, float(level)), -(-config.test_images // 5)
            ).items():
                by_strength[name].append(value)
            bar.update(len(rows) + i, f"strength {level:.2f}")
    return rows, {"strength": levels.tolist()} | by_strength


def read_omniglot(params: Any, net: cnn_jax.Layer, data_dir: Path | None, out: Path) -> dict[str, Any]:
    """The network on 40 real drawings by 20 people, if they can be had."""
    try:
        drawings, labels = omniglot.load_xo(data_dir)
    except (OSError, ValueError) as error:
        (out / "omniglot.png").unlink(missing_ok=True)
        return {"line": f"Omniglot's X's and O's: not read ({cli.one_line_error(error)})"}
    framed = np.stack([letters.segment_letter(drawing, size=SIZE) for drawing in drawings])
    read = classification.reader(net, params, VIEWS)(framed).argmax(-1)
    titles = [f"{xo.CLASSES[is_]} read {xo.CLASSES[as_]}" for is_, as_ in zip(labels, read, strict=True)]
    figures.save(
        figures.image_grid(framed, titles, columns=10, title="Omniglot's X's and O's, as framed"), out / "omniglot.png"
    )
    right = int(np.sum(read == labels))
    return {"right": right, "of": len(labels), "line": f"Omniglot's X's and O's: {right} of {len(labels)} right"}


def draw_figures(params: Any, net: cnn_jax.Layer, metrics: dict, history: dict, out: Path, seed: int) -> None:
    """All figures of a training run."""
    key = jax.random.key(seed)
    keys = jax.random.split(key, 8)
    shown, titles = [], []
    draw = jax.jit(
        jax.vmap(lambda key, label, strengths: xo.draw(key, size=SIZE, label=label, **strengths), (0, 0, None))
    )
    for name, distorted in DISTORTIONS.items():
        strengths = {option: float(option in distorted) for option in xo.CLEAN}
        shown += list(np.asarray(draw(keys, jnp.arange(8) % 2, strengths)[0]))
        titles += [name] + [""] * 7
    figures.save(figures.image_grid(shown, titles, columns=8), out / "letters.png")

    strength = metrics["accuracy_by_strength"]
    lines = {name: 100 * np.array(strength[name]) for name in READERS}
    x = "strength of all distortions together"
    figure = figures.curves(strength["strength"], lines, xlabel=x, ylabel="accuracy, %", title="Read right")
    figures.save(figure, out / "strength.png")

    classification.draw_training(out, params, history)
    draw_explanations(params, net, np.stack(shown)[..., None], out)


def draw_explanations(params: Any, net: cnn_jax.Layer, letters: np.ndarray, out: Path) -> None:
    """What the network makes of the last letters, an X and an O: every stage, what counted, and the patches of all
    letters that features of a middle stage answer most."""

    @jax.jit
    def counted(params: Any, image: jax.Array) -> Stages:
        return Stages(
            {
                "saliency": explain.saliency(net, params, image),
                "SmoothGrad": explain.smooth_grad(jax.random.key(0), net, params, image),
                "integrated gradients": explain.integrated_gradients(net, params, image)[..., 0],
                "occlusion": explain.occlusion(net, params, image),
                "Grad-CAM": explain.grad_cam(net, params, image, stage=CAM_STAGE),
            }
        )

    stages = jax.jit(net.stages)
    for letter, image in zip(xo.CLASSES, letters[-8:], strict=False):
        named = {"image": image} | stages(params, image)
        title = f"What the network makes of an {letter}"
        figures.save(figures.stages(named, title=title), out / f"stages_{letter}.png")
        maps = counted(params, image)
        figures.save(
            figures.overlay(image, maps, title=f"What counted for the {letter}"), out / f"counted_{letter}.png"
        )

    best = jax.jit(
        lambda params, letters: explain.top_activating_patches(net, params, letters, stage=PATCHES_STAGE, count=8)
    )
    found = jax.device_get(best(params, letters))
    patches = found.patches[found.values[:, -1] > 0][:8]  # of features that answer something
    shown = patches.reshape(-1, *patches.shape[2:])
    (out / "patches.png").unlink(missing_ok=True)
    if len(shown):
        figures.save(figures.image_grid(shown, columns=8, title="A row for each feature"), out / "patches.png")


def table(rows: dict[str, dict[str, float]]) -> report.Table:
    """The comparison: what each reader reads right of each kind of letters."""
    return [["letters", *READERS]] + [[name, *(f"{100 * row[r]:.2f} %" for r in READERS)] for name, row in rows.items()]
