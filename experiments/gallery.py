"""Which pictures do the READMEs show? Those that the scripts make: this runs them and puts their pictures in place.

The screenshots need the `draw` and `test` extras and Chromium; without these they stay as they are.

    python -m experiments.gallery             takes some minutes; runs/gallery keeps what the scripts wrote
"""

import dataclasses
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

import tyro
from PIL import Image

from cnn_jax.files import atomic_write

from ._lib import cli

# Each picture's script, and the file that it writes.
PICTURES = {
    "match.png": ("walkthrough", "4_match.png"),
    "votes.png": ("walkthrough", "8_votes.png"),
    "letters.png": ("xo", "letters.png"),
    "strength.png": ("xo", "strength.png"),
    "features.png": ("xo", "features.png"),
    "stages_X.png": ("xo", "stages_X.png"),
    "counted_X.png": ("xo", "counted_X.png"),
    "patches.png": ("xo", "patches.png"),
    "found.png": ("find", "found.png"),
}
SCREENSHOTS = ("draw.png", "draw_feature.png", "report.png")
CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
# Without these it asks for what no test or picture needs, some of it on the network.
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
HERE = Path(__file__).parent / "_lib" / "pictures"


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Run the scripts and renew the READMEs' pictures."""

    out: Path = Path("runs/gallery")
    """Folder for what the scripts write."""
    pictures: Path = HERE
    """Folder of the READMEs' pictures."""


def free_port() -> int:
    """A port of this machine at which nothing is served."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


def run(name: str, out: Path) -> None:
    """Runs a script; raises an OSError when it fails."""
    command = [sys.executable, "-m", f"experiments.{name}", "--out", str(out / name)]
    if subprocess.run(command, check=False).returncode:
        raise OSError(f"{' '.join(command[1:])} failed")


def small(source: Path, target: Path) -> None:
    """Writes a picture, packed as well as PNG can."""
    with atomic_write(target) as temporary, Image.open(source) as picture:
        picture.convert("RGB").save(temporary, "PNG", optimize=True)


def screenshots(out: Path, pictures: Path) -> None:
    """The two tabs of the page of experiments.draw, and a report."""
    from playwright.sync_api import sync_playwright

    port = str(free_port())
    model, own = out / "xo/model.safetensors", out / "draw"
    words = ["--model", str(model), "--port", port, "--out", str(own)]
    command = [sys.executable, "-m", "experiments.draw", *words]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as served,
        sync_playwright() as browsers,
        browsers.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS) as browser,
    ):
        try:
            assert served.stdout is not None
            if not served.stdout.readline():
                raise OSError(f"{' '.join(command[1:])} failed")
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"http://127.0.0.1:{port}")
            page.click("[data-example='a deformed X']")
            page.wait_for_selector(".stage img")
            page.screenshot(path=own / "draw.png")
            page.click("role=tab[name='Match a feature']")
            page.wait_for_selector("td")
            page.screenshot(path=own / "draw_feature.png")
            page.goto((out / "walkthrough/report.html").absolute().as_uri())
            page.screenshot(path=own / "report.png")
        finally:
            served.terminate()
    for name in SCREENSHOTS:
        small(own / name, pictures / name)


def main(config: Gallery) -> dict[str, Any]:
    """Runs everything; returns what metrics.json holds."""
    out, pictures = cli.make_output_dir(config.out), cli.make_output_dir(config.pictures)
    for name in dict.fromkeys(script for script, _ in PICTURES.values()):
        run(name, out)
    for name, (script, file) in PICTURES.items():
        small(out / script / file, pictures / name)
    made = list(PICTURES)
    try:
        if CHROMIUM is None:
            raise ImportError("no Chromium")
        screenshots(out, pictures)
        made += SCREENSHOTS
    except ImportError as error:
        print(f"screenshots stay as they are: {error}", file=sys.stderr)
    metrics = {"pictures": made} | cli.versions()
    cli.write_json(out / "metrics.json", metrics)
    print(f"{len(made)} pictures in {pictures}")
    return metrics


if __name__ == "__main__":
    cli.run_script(lambda: main(tyro.cli(Gallery, description=__doc__)))
