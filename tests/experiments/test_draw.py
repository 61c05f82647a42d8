"""The page of experiments.draw, used in headless Chromium as a user uses it; what it answers, without a browser."""

import base64
import functools
import http.client
import io
import itertools
import json
import math
import os
import socket
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import optax
import pytest
from PIL import Image

import cnn_jax as cnn
from cnn_jax import figures
from cnn_jax.data import xo
from experiments import draw, walkthrough
from experiments._lib import draw_html
from experiments.gallery import CHROMIUM, CHROMIUM_FLAGS, free_port
from tests.helpers import cli


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """The model file that CNN_JAX_MODEL names, or that of a small network that learns to read letters here."""
    if "CNN_JAX_MODEL" in os.environ:
        return Path(os.environ["CNN_JAX_MODEL"]).absolute()
    options = {"features": [8, 16, 16, 32]}
    net, steps = cnn.nets.xo_net(**options), 300
    rate = optax.cosine_decay_schedule(3e-3, steps)
    how = {"optimizer": optax.adam(rate), "steps": steps, "batch_size": 64, "key": jax.random.key(0), "progress": False}
    jax.config.update("jax_disable_most_optimizations", False)  # it has more to do than its compiler
    params, _ = cnn.fit(net, functools.partial(xo.draw, size=28), **how)
    jax.config.update("jax_disable_most_optimizations", os.environ["JAX_DISABLE_MOST_OPTIMIZATIONS"] != "0")
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    cnn.save_params(path, params, net="xo_net", options=options)
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
    options = {"cwd": folder, "env": os.environ | environment, "text": True}
    with subprocess.Popen(map(str, command), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options) as process:
        line = process.stdout.readline()
        try:
            assert line.startswith(f"draw at http://127.0.0.1:{port} "), line + process.stdout.read()
            yield line.split()[2], folder / "runs/draw", process
        finally:
            process.terminate()


@pytest.fixture(scope="module")
def page(served):
    """The page in a browser, and the list of what went wrong in it or was asked of another machine."""
    if CHROMIUM is None:
        pytest.skip("no Chromium")
    playwright = pytest.importorskip("playwright.sync_api")
    with playwright.sync_playwright() as browsers:
        browser = browsers.chromium.launch(executable_path=CHROMIUM, args=CHROMIUM_FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 1000})
        page.wrong = []
        page.on("pageerror", lambda error: page.wrong.append(str(error)))
        page.on("console", lambda said: said.type in ("error", "warning") and page.wrong.append(said.text))
        page.on("request", lambda asked: asked.url.startswith((served[0], "data:")) or page.wrong.append(asked.url))
        page.goto(served[0])
        page.wait_for_selector("canvas")
        yield page
        browser.close()


def answered(page, act):
    """Does something, waits for the answer to it, and returns its text and how long it took, in milliseconds."""
    answer = page.locator(".answer:visible")
    before = answer.get_attribute("data-answers")
    act()
    page.wait_for_function(
        "([answer, before]) => (answer.dataset.answers ?? null) !== before", arg=[answer.element_handle(), before]
    )
    return answer.inner_text(), int(answer.get_attribute("data-milliseconds"))


def stroke(page, points):
    """Draws through points of the canvas, in shares of its side, with the mouse held down."""
    box = page.locator("canvas").bounding_box()
    for i, (x, y) in enumerate(points):
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"])
        if i == 0:
            page.mouse.down()
    page.mouse.up()


def letter(name, middle, size, turn, squeeze):
    """The strokes of an X or an O around its middle."""
    if name == "O":
        angles = np.linspace(0, 2 * math.pi, 24)
        strokes = [np.stack([np.cos(angles), squeeze * np.sin(angles)], -1)]
    else:
        strokes = [np.linspace((-squeeze, -1), (squeeze, 1), 8), np.linspace((squeeze, -1), (-squeeze, 1), 8)]
    cos, sin = math.cos(turn), math.sin(turn)
    return [np.array(middle) + size / 2 * points @ [[cos, sin], [-sin, cos]] for points in strokes]


LETTERS = [
    (name, middle, size, turn, squeeze)
    for (middle, size), (name, turn, squeeze) in zip(
        [((0.5, 0.5), 0.8), ((0.3, 0.35), 0.4), ((0.7, 0.6), 0.5), ((0.4, 0.7), 0.3), ((0.55, 0.45), 0.6)] * 4,
        itertools.product("XO", (0.0, 0.3), (0.7, 0.8, 0.9, 0.95, 1.0)),
        strict=True,
    )
]


def test_the_page_loads_and_its_letters_are_read_right_and_soon(page, served):
    """20 drawn letters of varied size and place. The soonest answer: what else runs here makes others wait."""
    times = []
    for name, *how in LETTERS:
        page.click(".clear")
        for points in letter(name, *how):
            text, milliseconds = answered(page, functools.partial(stroke, page, points))
        assert text.startswith(name), (name, how)
        times.append(milliseconds)
    print("milliseconds:", sorted(times))
    assert min(times) < 300
    assert len(page.locator(".answer:visible .stage img").all()) == 12
    assert page.wrong == []


def test_a_finger_draws_too(page, served):
    """By the events of a touch screen, on a page as narrow as a telephone."""
    context = page.context.browser.new_context(viewport={"width": 390, "height": 800}, has_touch=True, is_mobile=True)
    phone = context.new_page()
    phone.goto(served[0])
    phone.wait_for_selector("canvas")
    box = phone.locator("canvas").bounding_box()
    touch = context.new_cdp_session(phone)
    for points in letter("X", (0.5, 0.5), 0.7, 0.0, 1.0):
        places = [{"x": box["x"] + x * box["width"], "y": box["y"] + y * box["height"]} for x, y in points]

        def draw_it(places=places):
            kinds = ["touchStart"] + ["touchMove"] * (len(places) - 1)
            for kind, place in zip(kinds, places, strict=True):
                touch.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [place]})
            touch.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})

        text, _ = answered(phone, draw_it)
    assert text.startswith("X")
    assert phone.evaluate("document.documentElement.scrollWidth") <= 390
    context.close()


def test_the_articles_pictures_are_one_click_away(page):
    for name in ("the X", "a deformed X"):
        text, _ = answered(page, lambda name=name: page.click(f"[data-example='{name}']"))
        assert text.startswith("X")
    assert page.wrong == []


def test_absurd_uploads_get_a_message(page, tmp_path):
    (tmp_path / "text.png").write_text("no picture")
    (tmp_path / "empty.png").touch()
    Image.new("1", (9_000, 9_000)).save(tmp_path / "huge.png")
    Image.new("L", (40, 40), 255).save(tmp_path / "blank.png")
    for name, complaint in {
        "text.png": "picture: not a picture that can be read",
        "empty.png": "picture",
        "huge.png": "million",
        "blank.png": "nothing is drawn",
    }.items():
        put = functools.partial(page.set_input_files, ".left:visible input", tmp_path / name)
        text, _ = answered(page, put)
        assert complaint in text, name
        assert page.locator(".answer:visible .problem").count() == 1
        assert "Traceback" not in text
    with (tmp_path / "large.png").open("wb") as file:
        file.truncate(21_000_000)
    page.set_input_files(".left:visible input", tmp_path / "large.png")
    page.wait_for_selector("text=more than the 20 MB accepted")
    assert page.wrong == []


def test_a_drawn_feature_is_matched_live(page):
    page.click("role=tab[name='Match a feature']")
    page.wait_for_selector(".grid button:visible")
    text, _ = answered(page, lambda: page.click("[data-preset='diagonal']"))
    assert text.startswith("Best match 1.00, with the feature's top left corner at row 2, column 2, and 3 more as good")
    cells = [float(cell) for cell in page.locator(".answer:visible td").all_inner_texts()]
    article = np.asarray(cnn.match(draw.EXAMPLES["the X"], walkthrough.picture(walkthrough.FEATURES["diagonal"])))
    np.testing.assert_allclose(np.reshape(cells, (7, 7)), article, atol=0.0051)
    text, _ = answered(page, lambda: page.click(".grid button >> nth=1"))
    changed = walkthrough.picture(walkthrough.FEATURES["diagonal"])
    changed[0, 1] = 1
    best = float(cnn.match(draw.EXAMPLES["the X"], changed).max())
    assert f"Best match {best:.2f}" in text
    answered(page, lambda: page.click("[data-size='5']"))
    assert page.locator(".grid button").count() == 25
    text, _ = answered(page, lambda: page.click("[data-picture='drawing']"))
    assert text.startswith("Best match")
    assert page.wrong == []


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


def test_a_picture_that_is_ready_late_does_not_come_back(page):
    page.click("role=tab[name='Read a letter']")
    page.evaluate("document.querySelector('[data-example]').click(); document.querySelector('.clear').click()")
    page.wait_for_timeout(300)
    drawn = "[...document.querySelector('canvas').getContext('2d').getImageData(0, 0, 280, 280).data]"
    assert page.evaluate(f"{drawn}.filter((_, i) => i % 4 !== 3).every((level) => level === 0)")


def test_metrics_say_how_the_examples_are_read(served):
    found = json.loads((served[1] / "metrics.json").read_text())
    assert found["read"].keys() == {"the X", "a deformed X"}
    for read in found["read"].values():
        assert read["X"] > 0.9
        assert read["milliseconds"] > 0
    assert "a deformed X" in cli.check_report(served[1], figures=2)["th"]


def test_answers_without_a_browser():
    picture = draw_html.png(draw.EXAMPLES["the X"])
    diagonal = walkthrough.picture(walkthrough.FEATURES["diagonal"]).tolist()
    whole = draw.match({"feature": diagonal, "picture": "the X"})
    assert "Best match 1.00" in whole
    assert whole.count("<td>") == 49
    assert "<table>" not in draw.match({"feature": diagonal, "picture": picture})  # 94 x 94 numbers


@pytest.mark.parametrize(
    ("feature", "picture", "complaint"),
    [
        ([[1]], "the X", "feature: expected 3x3 or 5x5"),
        ([[1, 2, 3]] * 3, "the X", "feature: expected"),
        ([[float("nan")] * 3] * 3, "the X", "feature: expected"),
        ("<script>", "the X", "could not convert"),
        ([[10**400] * 3] * 3, "the X", "too large"),
        ([[1, 1, 1]] * 3, "a letter", "picture: expected a picture file"),
        ([[1, 1, 1]] * 3, "data:image/png;base64,???", "picture: expected a picture file"),
        ([[1, 1, 1]] * 3, None, "picture: expected a picture file"),
        ([[1, 1, 1]] * 3, "data:image/png;base64," + "A" * draw.LARGEST, "picture: expected at most 28 million"),
    ],
)
def test_what_is_wrong_is_said_in_a_line(feature, picture, complaint):
    answer = draw.match({"feature": feature, "picture": picture})
    assert answer.startswith('<p class="problem">')
    assert complaint in answer
    assert "<script>" not in answer


def test_a_wide_picture_keeps_its_shape():
    square = draw.squared(np.ones((10, 40), np.float32))
    assert square.shape == (draw.SHOWN, draw.SHOWN)
    rows, columns = np.nonzero(square == 1)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (draw.SHOWN // 4, draw.SHOWN)


def test_what_is_laid_over_a_picture():
    letter, values = np.full((2, 2), 1.0, np.float32), np.array([[1.0, 0.0], [-1.0, 0.5]])
    shown = draw_html.over(letter, values, 1.0)
    np.testing.assert_allclose(shown[0, 0] / 255, figures.POSITIVE_COLOR, atol=0.01)
    np.testing.assert_allclose(shown[1, 0] / 255, figures.NEGATIVE_COLOR, atol=0.01)
    assert len(set(shown[0, 1].tolist())) == 1  # grey
    url = draw_html.png(letter).removeprefix("data:image/png;base64,")
    with Image.open(io.BytesIO(base64.b64decode(url))) as image:
        np.testing.assert_array_equal(np.asarray(image), 255)


def test_wrong_arguments_end_in_one_line(tmp_path, model):
    _, err = cli.run(tmp_path, "experiments.draw", "--model", "missing.safetensors", code=2)
    assert err == "error: missing.safetensors: No such file or directory\n"
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        port = taken.getsockname()[1]
        _, err = cli.run(tmp_path, "experiments.draw", "--model", model, "--port", port, code=2)
    assert err.splitlines()[-1].startswith(f"error: port: expected a free one, got {port}")


def test_the_page_says_when_nothing_serves_it(page, served):
    """The last test: it ends the script."""
    served[2].terminate()
    served[2].wait(timeout=30)
    text, _ = answered(page, lambda: page.click("[data-example='the X']"))
    assert text == "No answer: is experiments.draw still running?"
    assert page.locator("[role=status]").first.inner_text() == text
