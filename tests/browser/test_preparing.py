"""The page for an encoder that has no weights yet: mean pooling searches, a button makes the others."""

import re
import shutil

import pytest
from gradio_client import Client
from gradio_client.exceptions import AppError
from playwright.sync_api import expect

from tests.browser.conftest import visit
from tests.conftest import first_answer, serve

pytestmark = [pytest.mark.browser, pytest.mark.slow]


@pytest.fixture(scope="module")
def corpus(tiny_corpus, tmp_path_factory):
    """The tiny corpus with so many captions that DITS trains for longer than a second page takes to open."""
    folder = tmp_path_factory.mktemp("corpora") / "wordy"
    shutil.copytree(tiny_corpus, folder)
    lines = (folder / "captions.csv").read_text().splitlines()
    more = [f"{line} number {n}" for line in lines[1:] if ",train," in line for n in range(50)]
    (folder / "captions.csv").write_text("\n".join(lines + more) + "\n")
    return folder


@pytest.fixture(scope="module")
def app(corpus, tiny_folder, tmp_path_factory):
    """The address of an app that starts with nothing in its cache folder."""
    environment = {"DITS_CACHE": str(tmp_path_factory.mktemp("cache"))}
    process, url = serve("--corpus", str(corpus), "--encoder", f"local-dir:{tiny_folder}", environment=environment)
    try:
        first_answer(url, "mean")
        yield url
    finally:
        process.terminate()
        process.wait(timeout=20)


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_the_offer_fits_a_phone(browser, app, scheme):
    with visit(browser, app, viewport={"width": 390, "height": 844}, color_scheme=scheme) as page:
        button = page.get_by_role("button", name="Prepare X-Pool and DITS")
        expect(button).to_be_visible()
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        box = button.bounding_box()
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390


def test_weights_are_prepared_from_the_page(browser, app):
    with visit(browser, app) as page:
        expect(page.locator(".results h2")).to_contain_text("ranked by Mean pooling")
        expect(page.get_by_role("radio", name="Mean pooling")).to_be_checked()
        expect(page.get_by_role("radio", name="X-Pool (no weights yet)")).to_be_visible()
        expect(page.locator(".comparison")).to_have_count(0)

        page.get_by_role("radio", name="DITS (no weights yet)").click()
        expect(page.get_by_text("The method 'dits' has no weights for the encoder tiny-")).to_be_visible()
        expect(page.locator(".results h2")).to_contain_text("ranked by Mean pooling")
        with pytest.raises(AppError, match="The method 'dits' has no weights for the encoder"):
            Client(app, verbose=False).predict(query="some colour", api_name="/search")
        page.get_by_role("radio", name="Mean pooling").click()

        page.get_by_role("button", name="Prepare X-Pool and DITS for this encoder (about 1 minute)").click()
        expect(page.locator("#prepare")).to_contain_text("Training DITS")
        expect(page.locator("#prepare progress")).to_have_attribute("value", re.compile(r"\d+"))
        expect(page.locator("#prepare button")).to_have_count(0)
        with visit(browser, app) as other:  # another visitor searches meanwhile, and sees how far it is
            expect(other.locator("#prepare")).to_contain_text("Training DITS")
            expect(other.locator("#prepare button")).to_have_count(0)

        expect(page.locator("#prepare")).to_be_hidden()
        expect(page.locator("#status")).to_contain_text("DITS weights")
        page.get_by_role("radio", name="DITS", exact=True).click()
        expect(page.locator(".results h2")).to_contain_text("ranked by DITS")
        expect(page.locator(".comparison .columns > div")).to_have_count(3)
        found = Client(app, verbose=False).predict(query="some colour", api_name="/search")
        assert set(found["results"][0]["ranks"]) == {"mean", "xpool", "dits"}
