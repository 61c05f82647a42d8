"""What does the network see in your drawing? A page for your own browser, served to this machine alone.

Draw an X or an O with the mouse or a finger, or drop a picture. The page shows the letter, its class and probability,
the votes, the pixels that count, and every filtered and pooled image. A second tab matches a feature of 3x3 or 5x5
pixels, which you draw, at every position of a picture.

    python -m experiments.draw                then open http://127.0.0.1:7860
"""

import dataclasses
import importlib.util
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float

from cnn_jax import figures
from cnn_jax.data import xo

from ._lib import article, cli, draw_answers, draw_html, draw_server, report, runner
from ._lib.draw_inspect import Inspect, make_inspect
from ._lib.xo_model import load_model, open_letter


@dataclasses.dataclass(frozen=True)
class Draw:
    """Serve the page until Ctrl-C."""

    model: Path | None = None
    """Model file; by default runs/xo/model.safetensors, which is trained first if it does not exist."""
    port: int = 7860
    """Port of 127.0.0.1 to serve at."""
    out: Path = Path("runs/draw")
    """Folder for metrics.json and report.html: the probabilities of the article's two pictures, and the time taken."""


def main(config: Draw) -> dict[str, Any]:
    """Writes a report on the examples, then serves until it is interrupted; returns the metrics."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("experiments.draw needs gradio: pip install 'cnn_jax[draw]'")
    draw_server.check_port(config.port)
    out = cli.make_output_dir(config.out)
    inspect = make_inspect(*load_model(config.model))
    classify_letter = draw_answers.make_classify_letter(inspect)
    draw_answers.compile_match_feature()
    examples = {
        name: measure_example(name, image, inspect, classify_letter, out) for name, image in article.IMAGES.items()
    }
    metrics = {"read": examples, "config": runner.options_as_text(config)} | cli.versions()
    page = draw_server.make_page(classify_letter, draw_answers.match_feature)
    draw_server.serve(page, config.port)
    write_report(config, out, metrics)
    print(f"draw at http://{draw_server.HOST}:{config.port} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        page.close(verbose=False)
    return metrics


def measure_example(
    name: str,
    image: Float[np.ndarray, "H W"],
    inspect: Inspect,
    classify_letter: Callable[[str], str],
    out: Path,
) -> dict[str, float]:
    """The probabilities of an example's classes and the milliseconds of an answer; draws the stages, NAME.png."""
    picture = draw_html.png_url(image)
    letter = open_letter(draw_answers.decode_data_url(picture))
    inspection = inspect(letter)  # compiles, so that the answer below is timed alone
    stages = {"image": letter[..., None], **inspection.stages}
    figures.save(figures.stages(stages, title=name), out / f"{name}.png")
    started = time.perf_counter()
    classify_letter(picture)
    milliseconds = 1e3 * (time.perf_counter() - started)
    probabilities = dict(zip(xo.CLASSES, inspection.probabilities.tolist(), strict=True))
    return {**probabilities, "milliseconds": milliseconds}


def write_report(config: Draw, out: Path, metrics: dict[str, Any]) -> None:
    """Writes metrics.json and report.html."""
    cli.write_json(out / "metrics.json", metrics)
    table = [["picture", *xo.CLASSES, "milliseconds"]]
    captions = {}
    for name, example in metrics["read"].items():
        probabilities = [f"{example[letter]:.4f}" for letter in xo.CLASSES]
        table.append([name, *probabilities, f"{example['milliseconds']:.0f}"])
        captions[f"{name}.png"] = f"{name}: every filtered and pooled image, a scale for each row"
    report.write_html(out, "draw", config, [table], captions)


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Draw, "draw", __doc__)))
