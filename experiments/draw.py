"""What does the network see in what you draw? A page for your own browser, served to this machine alone.

Draw an X or an O with mouse or finger, or drop a picture: the page shows the letter and how sure the network is, the
votes, what of the drawing counted, and every filtered and pooled image. A second tab matches a feature of 3x3 or 5x5
pixels, which you draw, everywhere in any picture.

    python -m experiments.draw                then open http://127.0.0.1:7860
"""

import base64
import binascii
import dataclasses
import functools
import html
import importlib.util
import io
import os
import socket
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import tyro
from PIL import Image

import cnn_jax
from cnn_jax import explain, figures
from cnn_jax.data import image_io, xo

from ._lib import classification, cli, draw_html, report, runner
from ._lib.xo_train import VIEWS
from .walkthrough import DEFORMED_X, THE_X, picture
from .xo import load_model, open_letter

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "_lib" / "page"
EXAMPLES = {"the X": picture(THE_X), "a deformed X": picture(DEFORMED_X)}
COVERED = 5  # rows and columns of the square that shows what counted
SHOWN = 96  # rows and columns that a picture is made, to match features on it
LARGEST = 28_000_000  # characters of a picture; base64 makes 20 MB a third more
FEATURES = (3, 5)  # rows and columns of a feature


@dataclasses.dataclass(frozen=True)
class Draw:
    """Serve the page until Ctrl-C."""

    model: Path | None = None
    """Model file, in place of runs/xo/model.safetensors (which is trained first if it is not there)."""
    port: int = 7860
    """Port of 127.0.0.1 to serve at."""
    out: Path = Path("runs/draw")
    """Folder for metrics.json and report.html: how the article's two pictures are read, and how soon."""


class Seen(NamedTuple):
    """What the network makes of a letter."""

    shares: jax.Array
    """How sure it is of each class, from the mean over the letter's views."""
    votes: jax.Array
    """Of the last layer, for the letter as it is."""
    stages: dict[str, jax.Array]
    falls: jax.Array
    """How much the winner's vote falls when a square around every second pixel is covered."""


def seeing(net: cnn_jax.Layer, params: Any) -> Callable[[np.ndarray], Seen]:
    """What gives all that is shown of a framed letter (SIZE, SIZE), by one program."""

    @jax.jit
    def see(params: Any, letter: jax.Array) -> Seen:
        image = letter[..., None]
        scores = classification.opinion(net, params, image[None], VIEWS)[0]
        falls = explain.occlusion(net, params, image, label=jnp.argmax(scores), window=COVERED, stride=2)
        return Seen(jax.nn.softmax(scores), net.apply(params, image), explain.stages(net, params, image), falls)

    return lambda letter: jax.device_get(see(params, letter))


def opened(data: str) -> io.BytesIO:
    """The file in a data URL."""
    data = str(data)
    if len(data) > LARGEST:
        raise ValueError(f"picture: expected at most {LARGEST // 10**6} million characters, got {len(data):,}")
    head, _, body = data.partition(",")
    if not (head.startswith("data:") and head.endswith(";base64")):
        raise ValueError("picture: expected a picture file, got something else")
    try:
        return io.BytesIO(base64.b64decode(body, validate=True))
    except binascii.Error as error:
        raise ValueError(f"picture: expected a picture file, got something else ({error})") from error


def squared(image: np.ndarray) -> np.ndarray:
    """Grey levels in the middle of a black square of SHOWN rows and columns."""
    scale = SHOWN / max(image.shape)
    rows, columns = (max(round(side * scale), 1) for side in image.shape)
    small = np.asarray(Image.fromarray(image).resize((columns, rows), Image.Resampling.BOX))
    square = np.full((SHOWN, SHOWN), -1, np.float32)
    top, left = (SHOWN - rows) // 2, (SHOWN - columns) // 2
    square[top : top + rows, left : left + columns] = small
    return square


def answering(answer: Callable[[Any], str]) -> Callable[[Any], str]:
    """The function, whose complaints become a line of the page."""

    @functools.wraps(answer)
    def safe(asked: Any) -> str:
        try:
            return answer(asked)
        except Exception as error:  # whatever is asked, the page says what was wrong with it
            return f'<p class="problem">{html.escape(cli.one_line_error(error))}</p>'

    return safe


def readable(see: Callable[[np.ndarray], Seen]) -> Callable[[str], str]:
    """What answers a picture, given as a data URL, with all that is shown of it."""

    @answering
    def read(picture: str) -> str:
        letter = open_letter(opened(picture))
        return draw_html.reading(letter, see(letter), xo.CLASSES)

    return read


@answering
def match(asked: dict[str, Any]) -> str:
    """Answers a feature and a picture, an example's name or a data URL, with how well they match everywhere."""
    feature, picture = np.asarray(asked["feature"], np.float32), str(asked["picture"])
    if feature.shape not in {(size, size) for size in FEATURES} or not np.all(np.abs(feature) <= 1):
        raise ValueError("feature: expected 3x3 or 5x5 numbers from -1 to 1, got something else")
    image = EXAMPLES[picture] if picture in EXAMPLES else squared(image_io.read_image(opened(picture)))
    return draw_html.matching(image, np.asarray(matched(image, feature)), feature)


matched = jax.jit(cnn_jax.match)


def page(read: Callable[[str], str]) -> Any:
    """The page, ready to be launched."""
    import gradio

    def part(name: str, function: Callable[..., str], **props: Any) -> None:
        gradio.HTML(
            html_template=(PAGE / f"{name}.html").read_text(),
            css_template=(PAGE / "page.css").read_text(),
            js_on_load=(PAGE / "cli.js").read_text() + (PAGE / f"{name}.js").read_text(),
            apply_default_css=False,
            server_functions=[function],
            **props,
        )

    with gradio.Blocks(title="What the network sees", analytics_enabled=False) as blocks:
        gradio.Markdown("# What the network sees")
        with gradio.Tab("Read a letter"):
            part("pad", read, examples={name: draw_html.png(image) for name, image in EXAMPLES.items()})
        with gradio.Tab("Match a feature"):
            part("feature", match)
    return blocks


def main(config: Draw) -> dict[str, Any]:
    """Reads the examples and reports on that, then serves until it is interrupted; returns what metrics.json holds."""
    if importlib.util.find_spec("gradio") is None:
        raise ValueError("experiments.draw needs gradio: pip install 'cnn_jax[draw]'")
    check_free(config.port)
    out = cli.make_output_dir(config.out)
    see = seeing(*load_model(config.model))
    read = readable(see)
    for image in (*EXAMPLES.values(), np.zeros((SHOWN, SHOWN), np.float32)):  # compile before anybody waits
        for size in FEATURES:
            matched(image, np.zeros((size, size), np.float32))
    found = {name: rehearse(name, image, see, read, out) for name, image in EXAMPLES.items()}
    metrics = {"read": found, "config": runner.options_as_text(config)} | cli.versions()
    blocks = page(read)
    serve(blocks, config.port)
    cli.write_json(out / "metrics.json", metrics)
    rows = [[name, f"{one['X']:.4f}", f"{one['O']:.4f}", f"{one['milliseconds']:.0f}"] for name, one in found.items()]
    pictures = {f"{name}.png": f"{name}: every filtered and pooled image, a scale for each row" for name in found}
    report.write_html(out, "draw", config, [[["picture", "X", "O", "milliseconds"], *rows]], pictures)
    print(f"draw at http://{HOST}:{config.port} (Ctrl-C ends it)", flush=True)
    try:
        threading.Event().wait()
    finally:
        blocks.close(verbose=False)
    return metrics


def rehearse(
    name: str, image: np.ndarray, see: Callable[[np.ndarray], Seen], read: Callable[[str], str], out: Path
) -> dict[str, float]:
    """How a picture is read and how soon, its stages drawn."""
    data = draw_html.png(image)
    letter = open_letter(opened(data))
    seen = see(letter)
    named = {"image": letter[..., None]} | seen.stages
    figures.save(figures.stages(named, title=name), out / f"{name}.png")
    started = time.perf_counter()
    read(data)
    milliseconds = 1e3 * (time.perf_counter() - started)
    return dict(zip(xo.CLASSES, seen.shares.tolist(), strict=True)) | {"milliseconds": milliseconds}


def check_free(port: int) -> None:
    """Raises a ValueError if nothing can be served at a port."""
    try:
        if port < 1:
            raise OverflowError("ports are from 1 to 65535")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"port: expected a free one, got {port} ({cli.one_line_error(error)})") from error


def serve(blocks: Any, port: int) -> None:
    """Serves the page in the background, with nothing that a network would be needed for."""
    from gradio import themes
    from starlette.middleware import Middleware

    for name in ("NO_PROXY", "no_proxy"):  # Gradio asks its own page whether it is there
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), HOST)))
    plain = themes.Base(font=("system-ui", "sans-serif"), font_mono=("monospace",))
    own = {"middleware": [Middleware(OwnPageOnly, port=port)]}
    options = {"share": False, "quiet": True, "footer_links": [], "prevent_thread_lock": True, "max_file_size": "20mb"}
    blocks.launch(server_name=HOST, server_port=port, theme=plain, app_kwargs=own, **options)


class OwnPageOnly:
    """Refuses what other sites' pages, open in the same browser, ask of this server."""

    def __init__(self, app: Any, port: int) -> None:
        self.app, self.hosts = app, {f"{host}:{port}" for host in (HOST, "localhost")}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import PlainTextResponse

        headers = dict(scope.get("headers", ()))
        host, origin = (headers.get(name, b"").decode("latin-1") for name in (b"host", b"origin"))
        if scope["type"] != "http" or (host in self.hosts and origin in ("", f"http://{host}")):
            await self.app(scope, receive, send)
        else:
            await PlainTextResponse("asked from another page", status_code=403)(scope, receive, send)


if __name__ == "__main__":
    cli.run_script(lambda: main(tyro.cli(Draw, description=__doc__)))
