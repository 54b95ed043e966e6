"""JupyterLab and a headless Chromium for the tests that click; screenshots are left in build/screenshots/."""

import contextlib
import json
import os
import shutil
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from missing import missing
from playwright.sync_api import Browser, Page, Route, sync_playwright

from devil_lib.course.execute import end_process_tree
from devil_lib.course.lessons import ROOT

SCREENSHOTS = ROOT / "build" / "screenshots"
BROWSERS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
MINUTES_IN_MS = 60_000
TOKEN = "of-this-test-only"


@pytest.fixture(scope="module")
def browser() -> Iterator[Browser]:
    path = next(filter(None, map(shutil.which, BROWSERS)), None)
    if path is None:
        missing(f"no browser here: install chromium (looked for {', '.join(BROWSERS)})")
    quiet = (
        "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking",
        "--disable-component-update", "--disable-sync", "--disable-default-apps", "--no-first-run",
    )  # fmt: skip
    with sync_playwright() as playwright:
        chromium = playwright.chromium.launch(executable_path=path, args=list(quiet))
        yield chromium
        chromium.close()


def settings(folder: Path, plugin: str, name: str, values: dict) -> None:
    path = folder / "@jupyterlab" / plugin / f"{name}.jupyterlab-settings"
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(values))


@contextlib.contextmanager
def jupyter_lab(root: Path, *options: str) -> Iterator[str]:
    """JupyterLab on a folder, which is the working directory too, with settings of its own: its address."""
    private = root / "private"
    # Every cell is drawn, also those outside the window, so that the test can look at them.
    settings(private / "settings", "notebook-extension", "tracker", {"windowingMode": "none"})
    settings(private / "settings", "apputils-extension", "notification", {"fetchNews": "false"})
    environment = {
        **os.environ,
        "JUPYTERLAB_SETTINGS_DIR": str(private / "settings"),
        "JUPYTERLAB_WORKSPACES_DIR": str(private / "workspaces"),
        "JUPYTER_CONFIG_DIR": str(private / "config"),
        "JUPYTER_DATA_DIR": str(private / "data"),
        "JUPYTER_RUNTIME_DIR": str(private / "runtime"),
        "IPYTHONDIR": str(private / "ipython"),
    }
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    log = (private / "log").open("w")
    process = subprocess.Popen(
        [
            sys.executable, "-m", "jupyterlab", "--no-browser", f"--ServerApp.root_dir={root}", "--ip=127.0.0.1",
            f"--port={port}", "--ServerApp.port_retries=0", f"--IdentityProvider.token={TOKEN}",
            "--LabApp.check_for_updates_class=jupyterlab.NeverCheckForUpdate", "--LabApp.news_url=None",
            *options, *(["--allow-root"] if hasattr(os, "getuid") and os.getuid() == 0 else []),
        ],
        stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment, cwd=root,
    )  # fmt: skip
    address = f"http://127.0.0.1:{port}"
    deadline = time.monotonic() + 120
    while True:
        try:
            urllib.request.urlopen(f"{address}/api/status?token={TOKEN}", timeout=5).close()
            break
        except OSError:
            if process.poll() is not None or time.monotonic() > deadline:
                end_process_tree(process.pid)
                pytest.fail(f"JupyterLab did not start: {(private / 'log').read_text()[-2000:]}")
            time.sleep(0.3)
    try:
        yield address
    finally:
        end_process_tree(process.pid)
        log.close()


@contextlib.contextmanager
def offline_page(browser: Browser, name: str, but: tuple[str, ...] = (), **options: Any) -> Iterator[Page]:
    """A page that reaches nothing but this machine; whoever opened it fails if it tried to.

    name: of the screenshot that is left at the end. but: beginnings of addresses that may be tried, in vain.
    """
    context = browser.new_context(**{"viewport": {"width": 1280, "height": 900}} | options)
    elsewhere = []

    def only_here(route: Route) -> None:
        if route.request.url.startswith(("http://127.0.0.1:", "data:", "blob:")):
            route.continue_()
        else:
            elsewhere.append(route.request.url)
            route.abort()

    context.route("**/*", only_here)
    opened = context.new_page()
    yield opened
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    opened.screenshot(path=SCREENSHOTS / f"{name}.png")
    context.close()
    assert [url for url in elsewhere if not url.startswith(but)] == [], "nothing here may need the network"


@pytest.fixture
def page(browser: Browser) -> Iterator[Page]:
    with offline_page(browser, "last") as opened:
        yield opened
