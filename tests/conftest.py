"""Fixtures that several test files share, and how tests are shared out among processes."""

import functools
import http.server
import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from processes import one_of_several

if one_of_several():
    # Several threads in each of several processes would wait for one another. PyTorch reads this when it is imported.
    os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch

# What takes minutes comes first, so that no process is left alone with it at the end; all else in the order of the names.
LONG = (
    "test_notebooks",
    "test_term",
    "test_grading_a",
    "test_results",
    "test_browser",
    "test_challenge",
    "test_bench",
)


@pytest.hookimpl(tryfirst=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """With several processes (`make test`) a file is one's, because its tests share what they make; a lesson is its own."""

    def place(item: pytest.Item) -> int:
        return next((i for i, name in enumerate(LONG) if item.path.stem.startswith(name)), len(LONG))

    items.sort(key=place)
    for item in items:
        alone = item.path.stem == "test_notebooks"
        item.add_marker(pytest.mark.xdist_group(item.name if alone else item.path.stem))


@pytest.fixture(autouse=True)
def same_numbers() -> None:
    """What a test draws without a seed of its own is the same at every run, whatever ran before it."""
    torch.manual_seed(0)


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
