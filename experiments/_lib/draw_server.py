"""The page of `experiments.draw`, built with Gradio and served to this machine alone."""

import os
import socket
from collections.abc import Callable
from pathlib import Path
from typing import Any

from . import article, cli, draw_html

HOST = "127.0.0.1"
PAGE = Path(__file__).parent / "page"
TITLE = "What the network sees"


def make_page(classify_letter: Callable[[str], str], match_feature: Callable[[Any], str]) -> Any:
    """The Gradio page. Its scripts call the two functions by their names."""
    import gradio

    def add_part(name: str, function: Callable[..., str], **props: Any) -> None:
        gradio.HTML(
            html_template=(PAGE / f"{name}.html").read_text(),
            css_template=(PAGE / "page.css").read_text(),
            js_on_load=(PAGE / "common.js").read_text() + (PAGE / f"{name}.js").read_text(),
            apply_default_css=False,
            server_functions=[function],
            **props,
        )

    examples = {name: draw_html.png_url(image) for name, image in article.IMAGES.items()}
    with gradio.Blocks(title=TITLE, analytics_enabled=False) as page:
        gradio.Markdown(f"# {TITLE}")
        with gradio.Tab("Classify a letter"):
            add_part("pad", classify_letter, examples=examples)
        with gradio.Tab("Match a feature"):
            add_part("feature", match_feature)
    return page


def check_port(port: int) -> None:
    """Checks the option --port.

    Raises:
      ValueError: a page cannot be served at the port.
    """
    try:
        if port < 1:
            raise OverflowError("ports are from 1 to 65535")
        with socket.socket() as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind((HOST, port))
    except (OSError, OverflowError) as error:
        raise ValueError(f"--port: expected a free port, got {port} ({cli.one_line_error(error)})") from error


def serve(page: Any, port: int) -> None:
    """Serves a page in the background, without anything that needs a network."""
    from gradio import themes
    from starlette.middleware import Middleware

    for name in ("NO_PROXY", "no_proxy"):  # Gradio requests its own page to see that it is served
        os.environ[name] = ",".join(filter(None, (os.environ.get(name), HOST)))
    page.launch(
        server_name=HOST,
        server_port=port,
        theme=themes.Base(font=("system-ui", "sans-serif"), font_mono=("monospace",)),
        app_kwargs={"middleware": [Middleware(SameOriginOnly, port=port)]},
        share=False,
        quiet=True,
        footer_links=[],
        prevent_thread_lock=True,
        max_file_size="20mb",
    )


class SameOriginOnly:
    """ASGI middleware that refuses requests of other sites' pages, open in the same browser."""

    def __init__(self, app: Any, port: int) -> None:
        self.app = app
        self.hosts = {f"{host}:{port}" for host in (HOST, "localhost")}

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        from starlette.responses import PlainTextResponse

        if scope["type"] != "http" or self.is_same_origin(dict(scope.get("headers", ()))):
            await self.app(scope, receive, send)
        else:
            response = PlainTextResponse("forbidden: cross-origin request", status_code=403)
            await response(scope, receive, send)

    def is_same_origin(self, headers: dict[bytes, bytes]) -> bool:
        """Whether the Host and, if there is one, the Origin are this server's."""
        host = headers.get(b"host", b"").decode("latin-1")
        origin = headers.get(b"origin", b"").decode("latin-1")
        return host in self.hosts and origin in ("", f"http://{host}")
