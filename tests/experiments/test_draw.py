"""The script experiments.draw, and its page, used in headless Chromium as a user uses it."""

import functools
import http.client
import itertools
import json
import math
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from PIL import Image

import cnn_jax as cnn
from cnn_jax.data import xo
from experiments import draw
from experiments._lib import article, draw_html
from experiments._lib.draw_inspect import Inspection
from experiments.gallery import CHROMIUM, CHROMIUM_FLAGS, free_port
from tests.helpers import cli

STEPS = 300
in_browser = pytest.mark.slow


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The model file that CNN_JAX_MODEL names, or that of a small network that is trained here."""
    if "CNN_JAX_MODEL" in os.environ:
        return Path(os.environ["CNN_JAX_MODEL"]).absolute()
    features = (8, 16, 16, 32)
    net = cnn.nets.xo_net(features=features)
    jax.config.update("jax_disable_most_optimizations", False)  # training takes longer than compiling
    params, _ = cnn.fit(
        net,
        functools.partial(xo.draw, size=28),
        optimizer=optax.adam(optax.cosine_decay_schedule(3e-3, STEPS)),
        steps=STEPS,
        batch_size=64,
        key=jax.random.key(0),
        progress=False,
    )
    jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    cnn.save_params(path, params, net="xo_net", options={"features": features})
    return path


@pytest.fixture(scope="module")
def served(model, tmp_path_factory):
    """The address of the page, served by the script, and the folder that it writes to."""
    folder = tmp_path_factory.mktemp("served")
    port = free_port()
    command = [sys.executable, "-m", "experiments.draw", "--model", model, "--port", port]
    environment = {
        "PYTHONPATH": str(cli.ROOT),
        "JAX_COMPILATION_CACHE_DIR": cli.COMPILED.name,
        "JAX_DISABLE_MOST_OPTIMIZATIONS": "0",  # its answers are timed
    }
    with subprocess.Popen(
        list(map(str, command)),
        cwd=folder,
        env=os.environ | environment,
        text=True,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
    ) as process:
        assert process.stdout is not None
        line = process.stdout.readline()
        try:
            assert line.startswith(f"draw at http://127.0.0.1:{port} "), line + process.stdout.read()
            yield line.split()[2], folder / "runs/draw", process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def page(served):
    """The page in a browser, with a list of its errors, warnings and requests to other machines."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.problems = []
        page.on("pageerror", lambda error: page.problems.append(str(error)))
        page.on("console", lambda message: message.type in ("error", "warning") and page.problems.append(message.text))
        page.on(
            "request", lambda request: request.url.startswith((served[0], "data:")) or page.problems.append(request.url)
        )
        page.goto(served[0])
        page.wait_for_selector("canvas")
        yield page
        browser.close()


def answered(page, act):
    """Calls `act()` and waits for the page's answer to it; returns its text and how long it took, in milliseconds."""
    answer = page.locator(".answer:visible")
    before = answer.get_attribute("data-answers")
    act()
    page.wait_for_function(
        "([answer, before]) => (answer.dataset.answers ?? null) !== before", arg=[answer.element_handle(), before]
    )
    return answer.inner_text(), int(answer.get_attribute("data-milliseconds"))


def stroke(page, points):
    """Draws through points of the canvas, in fractions of its side, with the mouse held down."""
    box = page.locator("canvas").bounding_box()
    for i, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def letter(name, middle, size, turn, squeeze):
    """The strokes of an X or an O around its middle, as points."""
    if name == "O":
        angles = np.linspace(0, 2 * math.pi, 24)
        strokes = [np.stack([np.cos(angles), squeeze * np.sin(angles)], -1)]
    else:
        strokes = [np.linspace((-squeeze, -1), (squeeze, 1), 8), np.linspace((squeeze, -1), (-squeeze, 1), 8)]
    rotation = [[math.cos(turn), math.sin(turn)], [-math.sin(turn), math.cos(turn)]]
    return [np.array(middle) + size / 2 * points @ rotation for points in strokes]


LETTERS = [
    (name, middle, size, turn, squeeze)
    for (middle, size), (name, turn, squeeze) in zip(
        [((0.5, 0.5), 0.8), ((0.3, 0.35), 0.4), ((0.7, 0.6), 0.5), ((0.4, 0.7), 0.3), ((0.55, 0.45), 0.6)] * 4,
        itertools.product("XO", (0.0, 0.3), (0.7, 0.8, 0.9, 0.95, 1.0)),
        strict=True,
    )
]


def test_an_examples_probabilities_and_time_are_measured_and_its_stages_drawn(tmp_path):
    inspection = Inspection(np.array([0.75, 0.25]), np.zeros(2), {"conv1": np.ones((4, 4, 2))}, np.zeros((14, 14)))
    pictures = []

    def classify_letter(picture):
        pictures.append(picture)
        return ""

    example = draw.measure_example("the X", article.THE_X, lambda letter: inspection, classify_letter, tmp_path)
    assert example == {"X": 0.75, "O": 0.25, "milliseconds": pytest.approx(0, abs=1000)}
    assert pictures == [draw_html.png_url(article.THE_X)]
    assert (tmp_path / "the X.png").exists()


def test_the_report_has_a_row_for_each_example(tmp_path):
    example = {"X": 0.75, "O": 0.25, "milliseconds": 12.3}
    draw.write_report(draw.Draw(out=tmp_path), tmp_path, {"read": {"the X": example}})
    texts = cli.check_report(tmp_path, figures=0)
    assert texts["td"] == ["0.7500", "0.2500", "12"]
    assert json.loads((tmp_path / "metrics.json").read_text()) == {"read": {"the X": example}}


@in_browser
def test_drawn_letters_are_classified_correctly_and_soon(page):
    """20 drawn letters of varied size and position. The fastest answer counts: other processes slow others down."""
    times = []
    for name, *how in LETTERS:
        page.click(".clear")
        answers = [answered(page, functools.partial(stroke, page, points)) for points in letter(name, *how)]
        text, milliseconds = answers[-1]
        assert text.startswith(name), (name, how)
        times.append(milliseconds)
    print("milliseconds:", sorted(times))
    assert min(times) < 300
    assert len(page.locator(".answer:visible .stage img").all()) == 12
    assert page.problems == []


@in_browser
def test_a_finger_draws_too(page, served):
    """By the events of a touch screen, on a page as narrow as a phone."""
    context = page.context.browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    phone.goto(served[0])
    phone.wait_for_selector("canvas")
    box = phone.locator("canvas").bounding_box()
    touch = context.new_cdp_session(phone)
    text = ""
    for points in letter("X", (0.5, 0.5), 0.7, 0.0, 1.0):
        positions = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points]

        def touch_stroke(positions=positions):
            kinds = ["touchStart"] + ["touchMove"] * (len(positions) - 1)
            for kind, position in zip(kinds, positions, strict=True):
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [position]})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        text, _ = answered(phone, touch_stroke)
    assert text.startswith("X")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


@in_browser
def test_the_articles_pictures_are_one_click_away(page):
    for name in ("the X", "a deformed X"):
        text, _ = answered(page, lambda name=name: page.click(f"[data-example='{name}']"))
        assert text.startswith("X")
    assert page.problems == []


@in_browser
def test_absurd_uploads_get_a_message(page, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.new("1", (9_000, 9_000)).save(tmp_path / "huge.png")
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    for name, message in {
        "text.png": "picture: not a picture that can be read",
        "empty.png": "picture",
        "huge.png": "million",
        "blank.png": "nothing is drawn",
    }.items():
        put = functools.partial(page.set_input_files, ".left:visible input", tmp_path / name)
        text, _ = answered(page, put)
        assert message in text, name
        assert page.locator(".answer:visible .problem").count() == 1
        assert "Traceback" not in text
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(21_000_000)
    page.set_input_files(".left:visible input", tmp_path / "large.png")
    page.wait_for_selector("text=expected at most 20 MB, got 21 MB")
    assert page.problems == []


@in_browser
def test_a_drawn_feature_is_matched_live(page):
    page.click("role=tab[name='Match a feature']")
    page.wait_for_selector(".grid button:visible")
    text, _ = answered(page, lambda: page.click("[data-preset='diagonal']"))
    assert text.startswith("Best match 1.00, top left corner at row 2, column 2. Other positions as good: 3.")
    cells = [float(cell) for cell in page.locator(".answer:visible td").all_inner_texts()]
    scores = np.asarray(cnn.match(jnp.asarray(article.THE_X), jnp.asarray(article.FEATURES["diagonal"])))
    np.testing.assert_allclose(np.reshape(cells, (7, 7)), scores, atol=0.0051)
    text, _ = answered(page, lambda: page.click(".grid button >> nth=1"))
    changed = article.FEATURES["diagonal"].copy()
    changed[0, 1] = 1
    best = float(cnn.match(jnp.asarray(article.THE_X), jnp.asarray(changed)).max())
    assert f"Best match {best:.2f}" in text
    answered(page, lambda: page.click("[data-size='5']"))
    assert page.locator(".grid button").count() == 25
    text, _ = answered(page, lambda: page.click("[data-picture='drawing']"))
    assert text.startswith("Best match")
    assert page.problems == []


@in_browser
def test_another_sites_page_is_refused(served):
    address = served[0].removeprefix("http://")
    for headers, status in (
        ({}, 200),
        ({"Origin": served[0]}, 200),
        ({"Origin": "https://elsewhere.example"}, 403),
        ({"Host": "elsewhere.example"}, 403),
    ):
        connection = http.client.HTTPConnection(address)
        connection.request("GET", "/", headers=headers)
        assert connection.getresponse().status == status, headers
        connection.close()


@in_browser
def test_a_picture_that_loads_late_does_not_come_back(page):
    page.click("role=tab[name='Classify a letter']")
    page.evaluate("document.querySelector('[data-example]').click(); document.querySelector('.clear').click()")
    page.wait_for_timeout(300)
    drawn = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 280, 280).data]"
    assert page.evaluate(f"{drawn}.filter((_, i) => i % 4 !== 3).every((level) => level === 0)")


@in_browser
def test_metrics_hold_the_probabilities_of_the_examples(served):
    metrics = json.loads((served[1] / "metrics.json").read_text())
    assert metrics["read"].keys() == {"the X", "a deformed X"}
    for example in metrics["read"].values():
        assert example["X"] > 0.9
        assert example["milliseconds"] > 0
    assert "a deformed X" in cli.check_report(served[1], figures=2)["th"]


@in_browser
def test_the_page_says_when_nothing_serves_it(page, served):
    """The last test, since it ends the script."""
    served[2].terminate()
    served[2].wait(timeout=30)
    text, _ = answered(page, lambda: page.click("[data-example='the X']"))
    assert text == "No answer: is experiments.draw still running?"
    assert page.locator("[role=status]").first.inner_text() == text
