"""Data files: found in a folder, or downloaded (from a server on this machine), verified and cached."""

import functools
import hashlib
import http.server
import re
import threading
import types

import numpy as np
import pytest

from cnn_jax.data._download import DATA_DIR_VARIABLE, fetch, find_local

CONTENT = np.random.default_rng(0).bytes(300_000)
CHECKSUM = f"sha256:{hashlib.sha256(CONTENT).hexdigest()}"
NAME = "set/file.bin"


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    """An empty cache, without a data folder and without a proxy."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv(DATA_DIR_VARIABLE, raising=False)
    return tmp_path / "cache"


def put(folder, content=CONTENT):
    path = folder / NAME
    path.parent.mkdir(parents=True)
    path.write_bytes(content)
    return path


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


class Handler(http.server.BaseHTTPRequestHandler):
    """Sends `content` from the requested byte on; interrupts the first `interruptions` responses in the middle."""

    def __init__(self, state, *arguments):
        self.state = state
        super().__init__(*arguments)

    def do_GET(self):
        requested_range = self.headers.get("Range") if self.state.ranges else None
        self.state.requests.append(self.headers.get("Range"))
        start = int(requested_range.removeprefix("bytes=").removesuffix("-")) if requested_range else 0
        content = self.state.content[start:]
        if self.path != "/file.bin":
            self.send_error(404)
            return
        if requested_range and not content:
            self.send_error(416)
            return
        self.send_response(206 if requested_range else 200)
        self.send_header("Content-Length", str(len(content)))
        if requested_range:
            self.send_header("Content-Range", f"bytes {start}-{start + len(content) - 1}/{len(self.state.content)}")
        self.end_headers()
        if self.state.interruptions:
            self.state.interruptions -= 1
            content = content[: len(content) // 2]
        self.wfile.write(content)

    def log_message(self, format, *args):
        pass


@pytest.fixture
def server():
    state = types.SimpleNamespace(content=CONTENT, ranges=True, interruptions=0, requests=[])
    with http.server.HTTPServer(("127.0.0.1", 0), functools.partial(Handler, state)) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        state.url = f"http://127.0.0.1:{running.server_port}/file.bin"
        yield state
        running.shutdown()
        thread.join()


CLOSED_URL = "http://127.0.0.1:9/file.bin"


def test_a_file_in_the_given_folder(tmp_path):
    path = put(tmp_path / "data")
    assert fetch(NAME, url=CLOSED_URL, checksum=CHECKSUM, data_dir=tmp_path / "data") == path
    assert fetch(NAME, url=CLOSED_URL, checksum=CHECKSUM, data_dir=str(tmp_path / "data")) == path


def test_md5_checksums(tmp_path):
    path = put(tmp_path / "data")
    md5 = hashlib.md5(CONTENT).hexdigest()
    assert fetch(NAME, url=CLOSED_URL, checksum=f"md5:{md5}", data_dir=tmp_path / "data") == path
    with pytest.raises(ValueError, match=f"expected md5:0, got md5:{md5}"):
        fetch(NAME, url=CLOSED_URL, checksum="md5:0", data_dir=tmp_path / "data")


def test_missing_files_are_not_found(tmp_path):
    assert find_local(NAME, checksum=CHECKSUM) is None
    assert find_local(NAME, checksum=CHECKSUM, data_dir=tmp_path) is None


def test_a_file_in_the_folder_of_the_environment(tmp_path, monkeypatch):
    path = put(tmp_path / "data")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "data"))
    assert fetch(NAME, url=CLOSED_URL, checksum=CHECKSUM) == path


def test_the_given_folder_goes_before_that_of_the_environment(tmp_path, monkeypatch):
    put(tmp_path / "environment", b"other")
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / "environment"))
    path = put(tmp_path / "data")
    assert fetch(NAME, url=CLOSED_URL, checksum=CHECKSUM, data_dir=tmp_path / "data") == path


@pytest.mark.parametrize("name", ["none", "file"])
def test_a_missing_folder_is_named(server, tmp_path, monkeypatch, name):
    """Nothing is downloaded instead."""
    (tmp_path / "file").write_text("not a folder")
    with pytest.raises(ValueError, match=f"data_dir: expected a folder, got {tmp_path / name}"):
        fetch(NAME, url=server.url, checksum=CHECKSUM, data_dir=tmp_path / name)
    monkeypatch.setenv(DATA_DIR_VARIABLE, str(tmp_path / name))
    with pytest.raises(ValueError, match=f"{DATA_DIR_VARIABLE}: expected a folder, got {tmp_path / name}"):
        fetch(NAME, url=server.url, checksum=CHECKSUM)
    assert server.requests == []


def test_a_wrong_file_is_refused_and_left_alone(tmp_path):
    path = put(tmp_path / "data", b"other")
    with pytest.raises(ValueError, match=rf"{re.escape(str(path))}: expected {CHECKSUM}"):
        fetch(NAME, url=CLOSED_URL, checksum=CHECKSUM, data_dir=tmp_path / "data")
    assert path.read_bytes() == b"other"


def test_downloads_once(server, cache):
    path = fetch(NAME, url=server.url, checksum=CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert path.name == "file.bin"
    assert files(cache) == [path]
    assert fetch(NAME, url=server.url, checksum=CHECKSUM) == path
    assert server.requests == [None]


def test_downloads_files_that_the_folder_lacks(server, tmp_path):
    (tmp_path / "data").mkdir()
    path = fetch(NAME, url=server.url, checksum=CHECKSUM, data_dir=tmp_path / "data")
    assert path.read_bytes() == CONTENT
    assert files(tmp_path / "data") == []


def test_a_spoiled_file_in_the_cache_is_downloaded_again(server):
    path = fetch(NAME, url=server.url, checksum=CHECKSUM)
    path.write_bytes(b"spoiled")
    assert fetch(NAME, url=server.url, checksum=CHECKSUM).read_bytes() == CONTENT


def test_interrupted_downloads_are_resumed(server, cache):
    server.interruptions = 1
    with pytest.raises(ConnectionError, match=NAME):
        fetch(NAME, url=server.url, checksum=CHECKSUM)
    path = fetch(NAME, url=server.url, checksum=CHECKSUM)
    assert path.read_bytes() == CONTENT
    assert files(cache) == [path]
    first, second = server.requests
    assert first is None
    assert 0 < int(second.removeprefix("bytes=").removesuffix("-")) <= len(CONTENT) // 2


def test_a_server_without_ranges_starts_again(server, cache):
    server.interruptions, server.ranges = 1, False
    with pytest.raises(ConnectionError):
        fetch(NAME, url=server.url, checksum=CHECKSUM)
    assert fetch(NAME, url=server.url, checksum=CHECKSUM).read_bytes() == CONTENT
    assert len(files(cache)) == 1


def test_a_wrong_download_is_refused_and_not_cached(server, cache):
    server.content = b"other"
    with pytest.raises(ValueError, match=CHECKSUM.removeprefix("sha256:")):
        fetch(NAME, url=server.url, checksum=CHECKSUM)
    assert files(cache) == []
    server.content = CONTENT
    assert fetch(NAME, url=server.url, checksum=CHECKSUM).read_bytes() == CONTENT


@pytest.mark.parametrize("is_reachable", [True, False])
def test_without_a_connection_the_message_says_where_to_put_the_file(server, cache, is_reachable):
    url = server.url + ".gone" if is_reachable else CLOSED_URL
    with pytest.raises(ConnectionError, match=rf"{NAME}: .*{url}.*FOLDER/{NAME} with {DATA_DIR_VARIABLE}=FOLDER"):
        fetch(NAME, url=url, checksum=CHECKSUM)
    assert files(cache) == []
