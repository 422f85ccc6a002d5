"""Accessibility: contrast, screen readers, and use with the keyboard alone."""

import re

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import expect

from tests.browser.conftest import visit

pytestmark = pytest.mark.browser

TABS = {  # the contents of a complete tab
    "Search": (".card", 8),
    "Your videos": ("#own-held .status", 1),
    "Trajectory": ("#trajectory-figures .panel:has(.main-svg)", 4),
    "Modality gap": ("#gap-maps .panel:has(.main-svg)", 2),
    "About": ("#about table", 2),
}
WIDTHS = {390: 844, 820: 1180, 1440: 900}
VIEWS = [(scheme, width) for scheme in ("light", "dark") for width in WIDTHS]
QUICK = [("light", 1440), ("dark", 390)]

# Drawings are hidden from screen readers, which hear their descriptions: axe would walk their thousands of points.
FINDINGS = """async () => {
  const found = await axe.run({ exclude: [[".main-svg"]] }, { resultTypes: ["violations"] });
  return found.violations
    .filter(({ impact }) => ["serious", "critical"].includes(impact))
    .map(({ id, nodes }) => `${id}: ${nodes.map((node) => node.target + " " + node.failureSummary).join("; ")}`);
}"""

# What has the focus, and whether a ring as wide as this page's, or the browser's own, shows it inside the window.
FOCUSED = """() => {
  const element = document.activeElement;
  const ringed = [element, element.closest("label")].filter(Boolean).some((part) => {
    const { outlineStyle, outlineWidth } = getComputedStyle(part);
    return outlineStyle !== "none" && parseFloat(outlineWidth) >= 2;
  });
  const { x, y, right, bottom } = element.getBoundingClientRect();
  const seen = x < innerWidth && y < innerHeight && right > 0 && bottom > 0;
  const name = element.ariaLabel ?? element.labels?.[0]?.textContent ?? element.textContent;
  return { tag: element.tagName, name: name.trim(), visible: ringed && seen };
}"""

UNNAMED = re.compile(r"^\s*- (button|textbox|slider|radio|checkbox|combobox|spinbutton|link|tab|region)\b(?! \")")


@pytest.fixture(scope="module")
def page(browser, app_url):
    """Without motion: colours are there at once when the scheme changes."""
    with visit(browser, app_url, reduced_motion="reduce") as page:
        page.evaluate(Axe().axe_script)
        yield page


@pytest.mark.parametrize("views", [QUICK, pytest.param(VIEWS, marks=pytest.mark.slow)], ids=["two", "all"])
@pytest.mark.parametrize("tab", TABS)
def test_axe_finds_nothing_serious(page, tab, views):
    opened(page, tab)
    found = {}
    for scheme, width in views:
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.wait_for_function("dark => document.body.classList.contains('dark') === dark", arg=scheme == "dark")
        page.set_viewport_size({"width": width, "height": WIDTHS[width]})
        found[scheme, width] = page.evaluate(FINDINGS)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert {key: findings for key, findings in found.items() if findings} == {}
    assert len(found) == len(views)


@pytest.mark.parametrize("tab", TABS)
def test_every_control_has_a_name_for_screen_readers(page, tab):
    opened(page, tab)
    tree = page.locator("body").aria_snapshot().splitlines()
    assert [line for line in tree if UNNAMED.match(line)] == []
    assert sum(bool(re.match(r"\s*- tab \"", line)) for line in tree) == len(TABS)
    assert page.locator("fieldset:visible:not([aria-label])").count() == 0  # what choices are for
    assert any(re.match(rf'\s*- tab "{tab}" \[selected\]', line) for line in tree)


def test_results_are_announced(page):
    opened(page, "Search")
    said = page.locator("#heard [role=status]")
    page.get_by_label("What should the clip show?").fill("a white horse")
    page.keyboard.press("Enter")
    expect(said).to_have_text("8 results for a white horse, ranked by DITS")
    page.get_by_role("radio", name="Mean pooling").check()
    expect(said).to_have_text("8 results for a white horse, ranked by Mean pooling")


def test_the_keyboard_reaches_everything_and_shows_where_it_is(browser, app_url):
    with visit(browser, app_url) as page:
        page.locator("body").focus()
        assert tabbed(page, "Skip to content") == 1
        page.keyboard.press("Enter")
        expect(page.locator(".results h2")).to_be_focused()
        page.keyboard.press("Shift+Tab")
        page.locator("body").evaluate("() => document.activeElement.blur()")

        tabbed(page, "What should the clip show?")
        page.keyboard.press("Control+A")
        page.keyboard.type("a white horse")
        page.keyboard.press("Enter")
        expect(page.locator(".results h2 q")).to_have_text("a white horse")

        tabbed(page, "X-Pool")
        page.keyboard.press("Space")
        expect(page.locator(".results h2")).to_contain_text("ranked by X-Pool")

        tabbed(page, "people playing chess")
        page.keyboard.press("Enter")
        expect(page.locator(".results h2 q")).to_have_text("people playing chess")

        tabbed(page, "Rank 1: ")
        page.keyboard.press("Enter")
        expect(page.locator("dialog.viewer")).to_be_visible()
        tabbed(page, "Close")
        page.keyboard.press("Enter")
        expect(page.locator("dialog.viewer")).to_be_hidden()
        assert page.evaluate(FOCUSED)["name"].startswith("Rank 1: ")  # back where it was


def test_arrows_go_from_tab_to_tab(browser, app_url):
    with visit(browser, app_url) as page:
        page.get_by_role("tab", name="Search").focus()
        for key, name in (("ArrowRight", "Your videos"), ("End", "About"), ("Home", "Search"), ("ArrowLeft", "About")):
            page.keyboard.press(key)
            expect(page.get_by_role("tab", name=name)).to_have_attribute("aria-selected", "true")
            focused = page.evaluate(FOCUSED)
            assert focused["name"] == name
            assert focused["visible"]


def opened(page, tab):
    page.get_by_role("tab", name=tab).click()
    place, count = TABS[tab]
    expect(page.locator(place)).to_have_count(count)


def tabbed(page, name, most=60):
    """Press Tab until the focused element has a name, and return how often; the focus is visible after every press."""
    for presses in range(1, most + 1):
        page.keyboard.press("Tab")
        focused = page.evaluate(FOCUSED)
        if focused["tag"] == "BODY":  # the browser's own controls
            continue
        assert focused["visible"], focused
        if focused["name"].startswith(name):
            return presses
    raise AssertionError(f"{most} times Tab do not reach '{name}'")
