"""Which pictures do the READMEs show? Those drawn by other scripts; this one runs them and copies the pictures.

Screenshots of the draw page and of a report need the `draw` and `test` extras and Chromium. Without these the old
screenshots stay.

    python -m experiments.gallery             takes some minutes; runs/gallery keeps the scripts' results
"""

import dataclasses
import shutil
import socket
import subprocess
import sys
from pathlib import Path
from typing import Any

from PIL import Image

from cnn_jax.files import atomic_write

from ._lib import cli

# For each picture the script that draws it, and the file's name there.
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
# Chromium runs without sandbox, GPU and background requests, which nothing here needs.
CHROMIUM_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--no-first-run"]
PICTURES_DIR = Path(__file__).parent / "_lib" / "pictures"


@dataclasses.dataclass(frozen=True)
class Gallery:
    """Run the scripts and update the READMEs' pictures."""

    out: Path = Path("runs/gallery")
    """Folder for the scripts' results."""
    pictures: Path = PICTURES_DIR
    """Folder of the READMEs' pictures."""


def free_port() -> int:
    """A free port of this machine."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_experiment(name: str, out: Path) -> None:
    """Runs a script; raises OSError if it fails."""
    command = [sys.executable, "-m", f"experiments.{name}", "--out", str(out / name)]
    if subprocess.run(command, check=False).returncode:
        raise OSError(f"{' '.join(command[1:])} failed")


def copy_optimized(source: Path, target: Path) -> None:
    """Copies a picture, compressed as well as PNG can."""
    with atomic_write(target) as temporary, Image.open(source) as picture:
        picture.convert("RGB").save(temporary, "PNG", optimize=True)


def take_screenshots(out: Path, pictures: Path) -> None:
    """Takes screenshots of both tabs of the page of experiments.draw, and of a report."""
    from playwright.sync_api import sync_playwright

    port = str(free_port())
    folder = out / "draw"
    model = out / "xo" / "model.safetensors"
    arguments = ["--model", str(model), "--port", port, "--out", str(folder)]
    command = [sys.executable, "-m", "experiments.draw", *arguments]
    with (
        subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as server,
        sync_playwright() as playwright,
        playwright.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS) as browser,
    ):
        try:
            assert server.stdout is not None
            if not server.stdout.readline():
                raise OSError(f"{' '.join(command[1:])} failed")
            page = browser.new_page(viewport={"width": 1280, "height": 900})
            page.goto(f"http://127.0.0.1:{port}")
            page.click("[data-example='a deformed X']")
            page.wait_for_selector(".stage img")
            page.screenshot(path=folder / "draw.png")
            page.click("role=tab[name='Match a feature']")
            page.wait_for_selector("td")
            page.screenshot(path=folder / "draw_feature.png")
            page.goto((out / "walkthrough" / "report.html").absolute().as_uri())
            page.screenshot(path=folder / "report.png")
        finally:
            server.terminate()
    for name in SCREENSHOTS:
        copy_optimized(folder / name, pictures / name)


def main(config: Gallery) -> dict[str, Any]:
    """Runs everything; returns the content of metrics.json."""
    out = cli.make_output_dir(config.out)
    pictures = cli.make_output_dir(config.pictures)
    for script in dict.fromkeys(script for script, _ in PICTURES.values()):
        run_experiment(script, out)
    for name, (script, file) in PICTURES.items():
        copy_optimized(out / script / file, pictures / name)
    updated = list(PICTURES)
    try:
        if CHROMIUM is None:
            raise ImportError("Chromium is not installed")
        take_screenshots(out, pictures)
        updated += SCREENSHOTS
    except ImportError as error:
        print(f"screenshots are not updated: {error}", file=sys.stderr)
    metrics = {"pictures": updated} | cli.versions()
    cli.write_json(out / "metrics.json", metrics)
    print(f"{len(updated)} pictures updated in {pictures}")
    return metrics


if __name__ == "__main__":
    cli.run_script(lambda: main(cli.parse_options(Gallery, "gallery", __doc__)))
