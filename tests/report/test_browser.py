"""The report page in a real browser, Debian's Chromium: sorted, linked, on a phone, in the dark and on paper."""

import io
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from PIL import Image

from ablations.report.build import PAGE, build_report

pytestmark = pytest.mark.slow

RESULTS = Path(__file__).parents[2] / "results"

PHONE = {"width": 375, "height": 800}
DESKTOP = {"width": 1280, "height": 900}

HEAVIEST = 2 * 10**6
"""Bytes."""

OPEN_ALL = "document.querySelectorAll('details').forEach(each => each.open = true)"


@pytest.fixture(scope="module")
def page_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The committed page; where none is committed, the page of the committed records."""
    listed = subprocess.run(["git", "ls-files", PAGE], cwd=RESULTS, capture_output=True, text=True, check=False)
    if listed.stdout.strip():
        return RESULTS / PAGE
    results = tmp_path_factory.mktemp("page") / "results"
    shutil.copytree(RESULTS, results)
    assert build_report(results, with_page=True).not_rebuilt == {}
    return results / PAGE


@pytest.fixture(scope="module")
def browser(find_program: Callable[[str], str]) -> Iterator[Any]:
    program = find_program("chromium")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Chromium's own sandbox does not start for root.
        chromium = playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield chromium
        chromium.close()


@pytest.fixture
def open_page(browser: Any, page_file: Path) -> Iterator[Callable[..., Any]]:
    """`open_page(**options)` opens the page; at the end of a test none has said anything on the console."""
    said: list[str] = []
    contexts = []

    def opened(**options: Any) -> Any:
        contexts.append(browser.new_context(**{"viewport": DESKTOP} | options))
        page = contexts[-1].new_page()
        page.on("console", lambda message: said.append(f"{message.type}: {message.text}"))
        page.on("pageerror", lambda error: said.append(f"uncaught: {error}"))
        page.on("requestfailed", lambda request: said.append(f"not loaded: {request.url}"))
        page.goto(page_file.as_uri())
        return page

    yield opened
    for context in contexts:
        context.close()
    assert said == []


def test_the_page_weighs_little(page_file):
    assert 10_000 < page_file.stat().st_size < HEAVIEST


NUMBER = re.compile(r"[<>]?\s*([+-]?\d[\d,]*(?:\.\d+)?)")


def number_of(text: str) -> float | None:
    found = NUMBER.match(text.strip())
    return float(found[1].replace(",", "")) if found else None


COLUMN = "(table, column) => [...table.tBodies[0].rows].map(row => row.cells[column].textContent.trim())"
ROWS = "table => [...table.tBodies[0].rows].map(row => row.textContent)"


def test_a_click_on_a_heading_sorts_every_table_up_down_and_back(open_page):
    page = open_page()
    tables = page.locator("table.sortable").element_handles()
    assert len(tables) > 10
    numeric = 0
    for table in tables:
        own = table.evaluate(ROWS)
        for place, button in enumerate(table.query_selector_all("thead th button")):
            for direction, sign in (("ascending", 1), ("descending", -1)):
                button.evaluate("button => button.click()")
                assert table.query_selector(f"th[aria-sort={direction}]").evaluate("cell => cell.cellIndex") == place
                numbers = [number_of(cell) for cell in table.evaluate(f"table => ({COLUMN})(table, {place})")]
                known = [sign * number for number in numbers if number is not None]
                assert known == sorted(known)
                assert numbers[: len(known)].count(None) == 0 or not known  # what is no number stands last
                numeric += len(set(known)) > 1
            button.evaluate("button => button.click()")
            assert table.query_selector("th[aria-sort]") is None
            assert table.evaluate(ROWS) == own
    assert numeric > 10


def test_a_real_click_and_the_keyboard_sort_too(open_page):
    page = open_page()
    button = page.locator("table.sortable thead th button").nth(1)
    heading = page.locator("table.sortable thead th").nth(1)
    button.click()
    assert heading.get_attribute("aria-sort") == "ascending"
    button.press("Enter")
    assert heading.get_attribute("aria-sort") == "descending"


def test_every_link_lands(open_page, page_file):
    page = open_page()
    page.evaluate(OPEN_ALL)
    links = page.locator("a[href]").evaluate_all("links => links.map(link => link.getAttribute('href'))")
    anchors = [link for link in links if link.startswith("#")]
    assert len(anchors) > 10
    for link in anchors:
        assert page.locator(f'[id="{link[1:]}"]').count() == 1, link
    files = [link for link in links if not link.startswith("#") and not urlsplit(link).scheme]
    assert [link for link in files if not (page_file.parent / urlsplit(link).path).exists()] == []
    assert {urlsplit(link).netloc for link in links} <= {"", "arxiv.org"}


def test_a_link_of_the_contents_brings_its_part_into_view(open_page):
    page = open_page()
    page.evaluate(OPEN_ALL)
    for link in page.locator("nav a").all():
        name = str(link.get_attribute("href"))[1:]
        link.click()
        box = page.locator(f'[id="{name}"]').bounding_box()
        assert box is not None
        assert box["y"] < DESKTOP["height"], name
        assert box["y"] + box["height"] > 0, name


@pytest.mark.parametrize("width", [320, PHONE["width"], 768, DESKTOP["width"], 1920])
def test_the_page_never_scrolls_sideways(open_page, width):
    page = open_page(viewport={"width": width, "height": 800})
    page.evaluate(OPEN_ALL)
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_text_on_a_phone_is_as_wide_as_the_phone(open_page):
    page = open_page(viewport=PHONE)
    wide = page.locator("p, li, h1, h2, h3, h4").evaluate_all(
        "all => all.filter(each => each.getBoundingClientRect().right > innerWidth).map(each => each.textContent)"
    )
    assert wide == []


def shades_of(png: bytes) -> tuple[float, int]:
    """Returns the mean brightness of a picture's upper left corner, and how many shades of grey the picture has."""
    with Image.open(io.BytesIO(png)) as image:
        grey = image.convert("L")
        return sum(grey.crop((0, 0, 8, 8)).tobytes()) / 64, len(set(grey.tobytes()))


@pytest.mark.parametrize(("scheme", "is_dark"), [("light", False), ("dark", True)])
def test_the_page_shows_in_light_and_dark(open_page, scheme, is_dark):
    page = open_page(color_scheme=scheme)
    brightness, shades = shades_of(page.screenshot())
    assert (brightness < 64) == is_dark
    assert (brightness > 192) != is_dark
    assert shades > 20
    ink = page.evaluate("getComputedStyle(document.body).color")
    assert (sum(map(int, re.findall(r"\d+", ink)[:3])) > 384) == is_dark


def test_paper_has_all_parts_and_no_navigation(open_page):
    page = open_page(color_scheme="dark")
    page.emulate_media(media="print")
    brightness, shades = shades_of(page.screenshot())
    assert brightness == 255
    assert shades > 20
    assert not page.locator("nav").is_visible()
    pages = len(re.findall(rb"/Type\s*/Page\b", page.pdf(prefer_css_page_size=True, print_background=True)))
    assert 5 < pages < 60


def test_no_table_is_cut_off_on_paper(open_page):
    page = open_page(viewport={"width": 688, "height": 1000})  # A4 less its margins, at 96 px an inch
    page.emulate_media(media="print")
    wide = page.locator("table").evaluate_all(
        "tables => tables.filter(each => each.getBoundingClientRect().right > innerWidth)"
        ".map(each => each.closest('[aria-label]').getAttribute('aria-label'))"
    )
    assert wide == []


def test_without_scripts_everything_is_there(open_page):
    page = open_page(java_script_enabled=False)
    assert page.locator("h1").is_visible()
    assert page.locator("table.sortable tbody tr").count() > 50
