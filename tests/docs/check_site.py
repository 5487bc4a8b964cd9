"""Check the built guide: `python check_site.py SITE`. Exits with 1 and names what is wrong.

Every link inside of the site leads to a page and an anchor that exist, nothing is loaded from outside,
and every equation is MathML with a link to a line of code.
"""

from __future__ import annotations

import sys
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote, urlsplit

LOADED = {"script": "src", "img": "src", "link": "href", "iframe": "src"}


class Page(HTMLParser):
    """The anchors, links, loaded files and equations of a page."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.anchors: set[str] = set()
        self.links: list[str] = []
        self.loaded: list[str] = []
        self.rows = self.formulas = self.code_links = 0
        self.in_code = False
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        given = {name: value or "" for name, value in attrs}
        self.anchors |= {given[name] for name in ("id", "name") if name in given}
        if LOADED.get(tag, "") in given and given.get("rel") != "canonical":
            self.loaded.append(given[LOADED[tag]])
        if tag == "a" and "href" in given:
            self.links.append(given["href"])
            self.code_links += self.in_code
        self.rows += given.get("class") == "row"
        self.formulas += tag == "math"
        if tag == "span":
            self.in_code = given.get("class") == "code"

    def handle_endtag(self, tag: str) -> None:
        if tag == "span":
            self.in_code = False


def faults(site: Path) -> list[str]:
    """Return what is wrong with a site, a line each."""
    pages = {file: Page(file.read_text(encoding="utf-8")) for file in site.rglob("*.html")}
    found = []
    for file, page in pages.items():
        name = file.relative_to(site)
        found += [f"{name} loads {url}" for url in page.loaded if urlsplit(url).netloc]
        if not page.rows == page.formulas <= page.code_links:
            found.append(
                f"{name} has {page.rows} equations, {page.formulas} formulas, {page.code_links} links"
            )
        if file.name == "404.html":
            continue  # its links begin at the server's root
        for url in page.links:
            parts = urlsplit(url)
            if parts.scheme or parts.netloc:
                continue
            target = (file.parent / unquote(parts.path)).resolve() if parts.path else file
            target = target / "index.html" if target.is_dir() else target
            if not target.is_file():
                found.append(f"{name} links {url}, which does not exist")
            elif parts.fragment and target in pages:
                anchor = unquote(parts.fragment)
                if anchor not in pages[target].anchors:
                    found.append(f"{name} links {url}, where there is no such anchor")
    if not any(page.formulas for page in pages.values()):
        found.append("no page has an equation")
    return found


if __name__ == "__main__":
    wrong = faults(Path(sys.argv[1]).resolve())
    print("\n".join(wrong) or "the guide's links, anchors and equations are right")
    sys.exit(bool(wrong))
