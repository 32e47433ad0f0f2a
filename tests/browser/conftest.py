"""A real Chromium, where the system has one: Debian's package `chromium`."""

import shutil
from pathlib import Path

import pytest

NAMES = ("chromium", "chromium-browser", "google-chrome")
OPTIONS = (
    *("--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update"),
)
#: Ignored by git; a look at them says more than any assertion.
SCREENSHOTS = Path(__file__).parents[2] / "screenshots"


@pytest.fixture(scope="module")
def browser():
    """A browser for the tests of a module.

    Not for the session: Playwright's sync API keeps an event loop running in this thread, in which
    tests of coroutines could not run.
    """
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the group browser")
    executable = next(filter(None, map(shutil.which, NAMES)), None)
    if executable is None:
        pytest.skip("no Chromium is installed (Debian's package chromium)")
    with sync_api.sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=executable, args=[*OPTIONS])
        yield started
        started.close()


@pytest.fixture(scope="module")
def open_page(browser):
    """Open a file, and return its page once it says that it is ready; nothing may go wrong on it.

    Errors in its console and requests to anywhere but the file fail the tests of the module.
    """
    contexts, problems = [], []

    def note(text, wrong):
        if wrong:
            problems.append(text)

    def open_file(path, **options):
        options = {"viewport": {"width": 1280, "height": 1000}, **options}
        context = browser.new_context(**options)
        contexts.append(context)
        page = context.new_page()
        url = Path(path).as_uri()
        page.on("pageerror", lambda error: note(str(error), wrong=True))
        page.on("console", lambda entry: note(entry.text, entry.type in PROBLEMS))
        page.on("request", lambda sent: note(sent.url, not harmless(sent.url, url)))
        page.goto(url)
        page.wait_for_selector("html[data-ready]", timeout=30_000)
        assert problems == []
        return page

    yield open_file
    for context in contexts:
        context.close()
    assert problems == []


PROBLEMS = ("error", "warning")


def harmless(asked, own):
    return asked == own or asked.startswith(("data:", "blob:"))


@pytest.fixture
def place():
    """Where an element is on the whole page, however far an earlier test has scrolled it."""
    script = """(ident) => {
        const box = document.getElementById(ident).getBoundingClientRect()
        const [x, y] = [box.x + window.scrollX, box.y + window.scrollY]
        return {x, y, width: box.width, height: box.height}
    }"""
    return lambda page, ident: page.evaluate(script, ident)


@pytest.fixture
def look():
    """Keep a screenshot of a page under a name, and return it as an array (height, width, 3)."""
    import io

    import numpy as np

    image = pytest.importorskip("PIL.Image", reason="needs the group browser")

    def shoot(page, name, **options):
        SCREENSHOTS.mkdir(exist_ok=True)
        content = page.screenshot(path=SCREENSHOTS / f"{name}.png", **options)
        return np.asarray(image.open(io.BytesIO(content)).convert("RGB"))

    return shoot
