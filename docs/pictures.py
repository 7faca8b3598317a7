"""Takes the pictures of the pages in docs/images from a home: `python docs/pictures.py SUMMARY`, by `make pictures`.

SUMMARY is a file with what `make run` has printed: the tour begins with its results. Needs Chromium on the PATH.
"""

import shutil
import sys
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from io import BytesIO
from itertools import product
from pathlib import Path
from typing import Any
from urllib.parse import urlencode

from PIL import Image
from playwright.sync_api import Page, sync_playwright

from assets.addresses import PORTS, address
from assets.front.pages import Links
from assets.home import Home
from pipelines import letters, ui
from pipelines.guard import token_of

IMAGES = Path(__file__).parent / "images"
WIDTHS, SCHEMES = (1440, 390), ("light", "dark")
COLOURS, TALLEST = 200, 2200
"""Of a picture: few colours make a small file, and what is below so many pixels is left out."""
SCREEN = {"width": 1200, "height": 750}
SECONDS = 3.8
"""For which the tour shows a picture: eight of them are half a minute."""
TERMINAL = """<!DOCTYPE html><title>make run</title><style>
  body { margin: 0; padding: 28px 36px; background: #14181b; color: #dfe6e2 }
  pre { font: 15px/1.5 monospace; white-space: pre-wrap } b { color: #57c498 }</style><pre><b>$ make run</b>
</pre>"""


def main(summary: Path) -> None:
    home = Home.from_environment()
    letters.write(home)
    with serving(home) as front, entered(front, token_of(home)) as page:
        paths = interesting(page)
        for name, path in paths.items():
            page.goto(front + path)
            for width, scheme in product(WIDTHS, SCHEMES):
                save(look(page, width, scheme), IMAGES / f"front-{name}-{width}-{scheme}.png")
        page.emulate_media(color_scheme="light")
        page.set_viewport_size(SCREEN)  # type: ignore[arg-type]
        record(tour(page, home, paths, front, summary))


@contextmanager
def serving(home: Home) -> Iterator[str]:
    """The address of the home's front door, with all servers up."""
    with ui.serving(home, "code", *PORTS, wanted=dict.fromkeys(PORTS, 0)) as processes:
        ui.await_servers(home, processes)
        yield address(home, "front")


@contextmanager
def entered(front: str, token: str) -> Iterator[Page]:
    """A page of Chromium that the front door has let in."""
    program = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as playwright, playwright.chromium.launch(executable_path=program) as browser:
        page = browser.new_page()
        page.set_default_timeout(120_000)
        page.goto(f"{front}?token={token}")
        yield page


def interesting(page: Page) -> dict[str, str]:
    """The paths of one page of each kind, by name."""
    known = {name: _asked(page, f"/api/{name}") for name in ("now", "timeline", "rows")}
    day, version = known["now"]["now"]["as_of"], known["rows"]["version"]
    part = min(known["rows"]["slices"], key=lambda one: one["challenger"] if one["by"] == "label" else 2.0)
    nights = [one["as_of"] for one in known["timeline"]["days"]]
    rows = {"version": version, "by": part["by"], "value": part["value"]}
    return {
        "first": "",
        "night": f"nights?as_of={nights[-2]}",
        "why": f"why/{version}",
        "numbers": f"rows?version={version}",
        "rows": f"rows?{urlencode(rows)}",
        "reports": "reports",
        "letter": f"letters/{day}.html",
        "error": "why/none",
    }


def _asked(page: Page, path: str) -> Any:
    return page.evaluate("(path) => fetch(path).then((answer) => answer.json())", path)


def look(page: Page, width: int, scheme: str) -> bytes:
    """A picture of the page on a screen of this width, light or dark."""
    page.emulate_media(color_scheme=scheme)  # type: ignore[arg-type]
    page.set_viewport_size({"width": width, "height": 900})
    page.wait_for_function("document.readyState === 'complete'")
    height = min(TALLEST, page.evaluate("document.documentElement.scrollHeight"))
    return page.screenshot(full_page=True, clip={"x": 0, "y": 0, "width": width, "height": height})


def save(picture: bytes, path: Path) -> None:
    """Write a picture in its most frequent colours: those that fill areas, and steps between them."""
    full = Image.open(BytesIO(picture)).convert("RGB")
    counted = sorted(full.getcolors(full.width * full.height) or [], reverse=True)[:COLOURS]
    palette = Image.new("P", (1, 1))
    palette.putpalette([part for _, colour in counted for part in colour])  # type: ignore[union-attr]
    full.quantize(palette=palette, dither=Image.Dither.NONE).save(path, optimize=True)


def tour(page: Page, home: Home, paths: dict[str, str], front: str, summary: Path) -> Iterator[bytes]:
    """From the command to a version in the registry, a picture at a time."""
    page.goto("about:blank")  # a page of the front door allows no style of its own
    page.set_content(TERMINAL)
    told = summary.read_text().rpartition("\n== Running")[2].partition("\n")[2].partition("\n== ")[0]
    page.locator("pre").evaluate("(pre, text) => pre.append(text)", told.strip())
    yield page.screenshot()
    page.goto(front)
    yield page.screenshot()
    slider = page.locator("#slide input")
    page.locator("#time").evaluate("(one) => one.scrollIntoView({behavior: 'instant'})")
    for key in ("ArrowLeft", "Home"):
        slider.press(key)
        yield page.screenshot()
    for name in ("why", "rows"):
        page.goto(front + paths[name])
        yield page.screenshot()
    links, version = Links.of(home), paths["why"].rpartition("/")[2]
    page.goto(f"{links.dagster}overview")
    page.get_by_role("link", name="refresh").wait_for()
    yield page.screenshot()
    page.goto(links.version(version))
    page.get_by_text("Intended use").first.wait_for()
    yield page.screenshot()


def record(pictures: Iterable[bytes]) -> None:
    first, *others = [Image.open(BytesIO(picture)).convert("RGB") for picture in pictures]
    duration = int(1000 * SECONDS)
    first.save(IMAGES / "tour.webp", save_all=True, append_images=others, duration=duration, loop=0, quality=70)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
