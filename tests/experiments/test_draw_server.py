"""The page of experiments.draw: its files, its port, and requests from other sites; without Gradio or a browser."""

import asyncio
import re
import socket

import html5lib
import pytest

from experiments._lib import article, draw_answers, draw_server

PARTS = {"pad": "classify_letter", "feature": "match_feature"}


def read(name):
    return (draw_server.PAGE / name).read_text(encoding="utf-8")


@pytest.mark.parametrize("part", PARTS)
def test_scripts_call_the_function_that_the_page_gives_them(part):
    assert set(re.findall(r"server\.(\w+)", read(f"{part}.js") + read("common.js"))) == {PARTS[part]}


@pytest.mark.parametrize("part", PARTS)
def test_scripts_find_their_elements_in_the_html(part):
    root = html5lib.HTMLParser(strict=True, namespaceHTMLElements=False).parseFragment(read(f"{part}.html"))
    selectors = set(re.findall(r'element\.querySelector(?:All)?\("([^"]+)"\)', read(f"{part}.js") + read("common.js")))
    assert selectors
    for selector in selectors - {".answer"}:
        name = selector.strip(".[]").split("=")[0]
        elements = [
            element
            for element in root.iter()
            if name == element.tag or name in element.attrib or name in (element.get("class") or "").split()
        ]
        assert elements, selector


def test_buttons_name_the_examples_that_there_are():
    for name in re.findall(r'data-(?:example|picture)="([^"]+)"', read("pad.html") + read("feature.html")):
        assert name in {*article.IMAGES, "drawing"}
    for size in re.findall(r'data-size="(\d+)"', read("feature.html")):
        assert int(size) in draw_answers.FEATURE_SIZES


def test_classes_of_the_answers_have_a_style():
    css = read("page.css")
    for name in ("read", "problem", "vote", "won", "pair", "stage"):
        assert f".{name}" in css


@pytest.mark.parametrize("port", [0, -1, 65536, 10**6])
def test_a_number_that_is_no_port_is_refused(port):
    with pytest.raises(ValueError, match=rf"^--port: expected a free port, got {port} \("):
        draw_server.check_port(port)


def test_a_port_in_use_is_refused():
    with socket.socket() as used:
        used.bind((draw_server.HOST, 0))
        used.listen()
        port = used.getsockname()[1]
        with pytest.raises(ValueError, match=rf"^--port: expected a free port, got {port} \("):
            draw_server.check_port(port)
    draw_server.check_port(port)


def status(headers, kind="http"):
    """The status of the answer to a request with these headers."""
    sent = []

    async def app(scope, receive, send):
        await send({"type": "http.response.start", "status": 200})

    async def send(message):
        sent.append(message)

    middleware = draw_server.SameOriginOnly(app, port=7860)
    scope = {"type": kind, "headers": [(name.encode(), value.encode()) for name, value in headers.items()]}
    asyncio.run(middleware(scope, None, send))
    return sent[0]["status"]


@pytest.mark.parametrize("host", ["127.0.0.1:7860", "localhost:7860"])
def test_the_pages_own_requests_are_answered(host):
    assert status({"host": host}) == 200
    assert status({"host": host, "origin": f"http://{host}"}) == 200


@pytest.mark.parametrize(
    "headers",
    [
        {"host": "127.0.0.1:7860", "origin": "https://elsewhere.example"},
        {"host": "127.0.0.1:7860", "origin": "https://127.0.0.1:7860"},
        {"host": "elsewhere.example"},
        {"host": "127.0.0.1:7861"},
        {},
    ],
)
def test_requests_of_other_sites_are_refused(headers):
    pytest.importorskip("starlette")
    assert status(headers) == 403


def test_events_of_the_server_itself_pass():
    assert status({}, kind="lifespan") == 200
