"""Fixtures that several test files share."""

import functools
import http.server
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest


@pytest.fixture
def nothing_there(tmp_path, monkeypatch):
    """No data folder, an empty cache, no network."""
    monkeypatch.delenv("DEVIL_DATA", raising=False)
    monkeypatch.setenv("DEVIL_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("DEVIL_OFFLINE", "1")


class _Quiet(http.server.SimpleHTTPRequestHandler):
    def log_message(self, *_arguments) -> None:
        pass


@pytest.fixture
def serve(monkeypatch) -> Iterator[Callable[[Path], str]]:
    """A function that serves a folder from this machine and hands back its address; downloads are allowed then."""
    running = []

    def start(folder: Path) -> str:
        httpd = http.server.ThreadingHTTPServer(("127.0.0.1", 0), functools.partial(_Quiet, directory=str(folder)))
        threading.Thread(target=httpd.serve_forever, daemon=True).start()
        running.append(httpd)
        monkeypatch.delenv("DEVIL_OFFLINE", raising=False)
        for proxy in ("http_proxy", "HTTP_PROXY", "all_proxy", "ALL_PROXY"):
            monkeypatch.delenv(proxy, raising=False)
        return f"http://127.0.0.1:{httpd.server_port}/"

    yield start
    for httpd in running:
        httpd.shutdown()
        httpd.server_close()
