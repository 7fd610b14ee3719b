"""The built site (`make docs`): its links resolve, and a browser without a network opens it."""

from __future__ import annotations

import html.parser
import os
import re
import shutil
import subprocess
from functools import cache
from pathlib import Path
from urllib.parse import unquote, urlsplit

import pytest

SITE = Path(__file__).parents[2] / "docs" / "_build" / "html"
BROWSER = shutil.which("chromium") or shutil.which("google-chrome")
OPENED = (
    "index.html", "quickstart.html", "concepts/certificate.html", "methods/distillation/kd.html",
    "examples/engineer.html", "examples/researcher.html", "examples/platform_engineer.html",
    "reference/cli.html", "reference/api/distill/distill.html", "troubleshooting/selecting.html",
)  # fmt: skip

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(
        not (SITE / "index.html").exists(), reason="no built documentation: run `make docs`"
    ),
]


class Links(html.parser.HTMLParser):
    """What a page refers to, and the anchors that it has."""

    def __init__(self, page: Path) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: set[str] = set()
        self.loaded: set[str] = set()
        self.feed(page.read_text(encoding="utf-8"))

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value for name, value in attrs if value}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if tag in ("a", "area") and "href" in given:
            self.links.add(given["href"])
        elif tag == "link" and "stylesheet" in given.get("rel", ""):
            self.loaded.add(given["href"])
        elif "src" in given:
            self.loaded.add(given["src"])


@cache
def parsed(page: Path) -> Links:
    return Links(page)


def test_every_link_inside_the_site_resolves() -> None:
    broken = []
    for page in SITE.rglob("*.html"):
        for link in parsed(page).links | parsed(page).loaded:
            parts = urlsplit(link)
            if parts.scheme or parts.netloc:
                continue
            target = (page.parent / unquote(parts.path)).resolve() if parts.path else page
            anchor = unquote(parts.fragment)
            whole = target.is_file() and (
                not anchor or target.suffix != ".html" or anchor in parsed(target).anchors
            )
            if not whole and anchor != "top":
                broken.append(f"{page.relative_to(SITE)}: {link}")
    assert not broken, "\n".join(sorted(broken))


def test_no_page_loads_anything_from_elsewhere() -> None:
    loaded = [link for page in SITE.rglob("*.html") for link in parsed(page).loaded]
    assert loaded
    assert [link for link in loaded if re.match(r"(https?:)?//", link)] == []


def open_page(url: str, profile: Path) -> tuple[str, list[str]]:
    """The page as a browser without a network shows it, and what its console says."""
    assert BROWSER is not None
    result = subprocess.run(
        [BROWSER, "--headless", "--no-sandbox", "--disable-gpu", "--no-first-run",
         "--disable-background-networking", "--disable-component-update", "--disable-sync",
         "--disable-quic", "--host-resolver-rules=MAP * ~NOTFOUND", f"--user-data-dir={profile}",
         "--enable-logging=stderr", "--virtual-time-budget=3000", "--dump-dom", url],
        capture_output=True, text=True, check=True, timeout=60,
    )  # fmt: skip
    return result.stdout, re.findall(r"CONSOLE[^]]*\] (.+)", result.stderr)


@pytest.mark.skipif(
    BROWSER is None and not os.environ.get("CI"), reason="no Chromium on this machine"
)
@pytest.mark.parametrize("name", OPENED)
def test_a_page_opens_from_the_disk_without_a_console_error(name: str, tmp_path: Path) -> None:
    document, console = open_page((SITE / name).as_uri(), tmp_path)
    assert "</html>" in document
    assert console == []


@pytest.mark.skipif(
    BROWSER is None and not os.environ.get("CI"), reason="no Chromium on this machine"
)
def test_the_search_finds_pages_without_a_network(tmp_path: Path) -> None:
    address = f"{(SITE / 'search.html').as_uri()}?q=entropy"
    document, console = open_page(address, tmp_path)
    assert re.search(r'href="methods/selection/controls\.html', document)
    assert console == []
