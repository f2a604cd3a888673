"""The board in a real browser: every page against a server on loopback, and the static site from disk."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from boards import page_store

from harness.cli.board import _free_port
from leaderboard.app import PAGES
from leaderboard.export import export

playwright = pytest.importorskip("playwright.sync_api")
CHROMIUM = shutil.which("chromium")
pytestmark = [
    pytest.mark.proof,
    pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: apt-get install chromium"),
]
CALM = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
PROBES = ("/_stcore/health", "/_stcore/host-config")  # Streamlit looks for its root below a deep link, and is told 404
WAIT_MS = 60_000
CHARTS = {"overview", "pareto", "method", "compare", "samples", "latency"}


@dataclass
class Browser:
    """A page that notes what it asks for and what it complains about."""

    page: playwright.Page
    asked: list[str] = field(default_factory=list)
    complaints: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.page.on("request", lambda request: self.asked.append(request.url))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("console", self._note)

    def _note(self, message: playwright.ConsoleMessage) -> None:
        probe = message.location.get("url", "").endswith(PROBES)
        if message.type in ("error", "warning") and not probe:
            self.complaints.append(message.text)

    def outside(self, *allowed: str) -> list[str]:
        """What was asked of anything else."""
        return [url for url in self.asked if not url.startswith((*allowed, "data:", "blob:"))]


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return page_store(tmp_path_factory.mktemp("board"))


@pytest.fixture(scope="module")
def browser() -> Iterator[playwright.Browser]:
    with playwright.sync_playwright() as started:
        found = started.chromium.launch(executable_path=CHROMIUM, args=list(CALM))
        yield found
        found.close()


@pytest.fixture(scope="module")
def address(store: Path) -> Iterator[str]:
    """A server of our own, ended by its process id."""
    port = _free_port("127.0.0.1")
    words = ["-c", "from harness.cli import main; main()", "board", "--store", str(store), "--port", str(port)]
    server = subprocess.Popen([sys.executable, *words], stderr=subprocess.PIPE, text=True)
    try:
        assert server.stderr is not None
        told = next((line for line in server.stderr if "is at http" in line), "it ended")
        assert f"http://127.0.0.1:{port} " in told, told
        yield f"http://127.0.0.1:{port}"
    finally:
        server.terminate()
        server.wait(timeout=30)


def _drawn(page: playwright.Page) -> None:
    """Wait until the charts that the page has are drawn."""
    page.wait_for_selector(".js-plotly-plot .main-svg", timeout=WAIT_MS)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_every_page_is_drawn_with_a_clean_console_and_asks_nobody_else(
    browser: playwright.Browser, address: str, scheme: str
):
    shown = Browser(browser.new_page(color_scheme=scheme))
    shown.page.goto(address)
    for name, (title, *_) in PAGES.items():
        shown.page.get_by_role("link", name=title, exact=True).click()
        shown.page.wait_for_selector(f"h1:has-text('{title}')", timeout=WAIT_MS)
        if name in CHARTS:
            _drawn(shown.page)
        assert not shown.page.query_selector('[data-testid="stException"]'), name
    assert shown.complaints == []
    assert shown.outside(address, address.replace("http", "ws")) == []


def test_a_link_opens_what_its_sender_saw_and_the_overlay_is_drawn(browser: playwright.Browser, address: str):
    shown = Browser(browser.new_page())
    shown.page.goto(f"{address}/samples?run=fastv:25%25")
    _drawn(shown.page)
    assert shown.page.locator(".js-plotly-plot image").count() >= 4  # image and units, before and after
    assert "fastv:25%" in shown.page.locator("input").evaluate_all("all => all.map(one => one.value)")
    assert shown.complaints == []


def test_the_site_opens_from_disk(browser: playwright.Browser, store: Path, tmp_path: Path):
    export(store, tmp_path / "site")
    shown = Browser(browser.new_page())
    shown.page.goto((tmp_path / "site" / "index.html").as_uri())
    for title, *_ in PAGES.values():
        shown.page.get_by_role("link", name=title, exact=True).first.click()
        shown.page.wait_for_selector(f"h1:has-text('{title}')")
        if title.lower() in CHARTS:
            _drawn(shown.page)
    assert shown.complaints == []
    assert shown.outside("file://") == []
