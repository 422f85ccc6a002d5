"""The analysis tabs in a real headless Chromium, as a visitor uses them."""

import io
import json
import re
import xml.etree.ElementTree as ET
from contextlib import contextmanager

import pandas as pd
import pytest
from PIL import Image
from playwright.sync_api import expect

from analysis.figures.style import PALETTES
from tests.browser.conftest import visit

pytestmark = pytest.mark.browser
HINTS = ("GPU stall", "willReadFrequently")
"""Chromium's own advice on how plotly.js could draw three dimensions faster."""

# A trace of a drawn figure, with its coordinates as plain numbers.
TRACE = """(plot, name) => {
  const trace = plot._fullData.find((trace) => trace.name === name);
  return trace && Object.fromEntries(["x", "y", "z"].map((axis) => [axis, trace[axis] && Array.from(trace[axis])]));
}"""


@pytest.fixture(scope="module")
def trajectory(browser, app_url):
    """A page on the tab Trajectory, with its figures drawn: shared, as opening one costs seconds.

    Its query is one that the shipped weights hardly move.
    """
    with watched(browser, f"{app_url}?q=two+boxers+fighting+in+a+ring", "Trajectory", "#trajectory-figures", 4) as page:
        yield page


@pytest.fixture(scope="module")
def gap(browser, app_url):
    with watched(browser, app_url, "Modality gap", "#gap-maps", 2) as page:
        yield page


@contextmanager
def watched(browser, app_url, tab, figures, count, **options):
    """`visit`, with a tab opened and its figures drawn, that fails on warnings too."""
    warnings = []

    def warned(message):
        if message.type == "warning":
            warnings.append(message.text)

    with visit(browser, app_url, **{"viewport": {"width": 1280, "height": 900}} | options) as page:
        page.on("console", warned)
        page.get_by_role("tab", name=tab).click()
        expect(page.locator(f"{figures} .panel:has(.js-plotly-plot)")).to_have_count(count)
        yield page
        page.remove_listener("console", warned)
    assert [text for text in warnings if not any(hint in text for hint in HINTS)] == []


def plot(page, name):
    return page.locator(f'.panel[data-name="{name}"] .plot')


def trace(page, panel, name):
    return plot(page, panel).evaluate(TRACE, name)


def redrawn(page, figures, act):
    """Does something, and waits until the figures are drawn anew."""
    page.locator(f"{figures} .panel").evaluate_all("panels => panels.forEach((panel) => panel.dataset.old = 1)")
    act()
    expect(page.locator(f"{figures} .panel[data-old]")).to_have_count(0)
    last = page.locator(f"{figures} .panel").last
    expect(last.locator(".main-svg, .gl-container").first).to_be_visible()


def slide(page, panel, step):
    """Drags a figure's slider to a step, as an input event says it."""
    slider = page.locator(f'.panel[data-name="{panel}"] input[type=range]')
    slider.evaluate("(slider, step) => { slider.value = step; slider.dispatchEvent(new Event('input')); }", step)


def choose_method(page, label, title):
    page.get_by_label(label, exact=True).first.click()
    page.get_by_role("option", name=title, exact=True).click()


# Trajectory


def test_the_query_of_the_search_tab_is_followed(trajectory):
    searched = trajectory.locator("#query textarea").input_value()
    assert searched
    expect(trajectory.locator("#trajectory-query textarea")).to_have_value(searched)
    expect(trajectory.locator("#trajectory-numbers")).to_contain_text("After 10 steps, the query has moved by")


def test_a_trajectory_is_drawn_over_the_corpus_with_its_clip_ringed(trajectory, engine):
    path = trace(trajectory, "map-linear", "trajectory of the query")
    assert len([x for x in path["x"] if x is not None and x == x]) == 11
    assert len(trace(trajectory, "map-linear", "video")["x"]) == len(engine.corpus)
    ring, clips = trace(trajectory, "map-linear", "the clip followed"), trace(trajectory, "map-linear", "video")
    first = engine.search(trajectory.locator("#trajectory-query textarea").input_value(), "dits", 1).hits[0].clip
    assert ring["x"] == [clips["x"][engine.corpus.ids.index(first.id)]]
    names = plot(trajectory, "map-linear").evaluate("plot => plot._fullData.map((trace) => trace.name)")
    assert names.index("trajectory of the query") > names.index("video") > names.index("text")  # drawn later: on top


def test_the_slider_moves_the_point_along_the_trajectory(trajectory):
    path = trace(trajectory, "trajectory-linear", "trajectory of the query")
    name = trajectory.locator('.panel[data-name="trajectory-linear"] output')
    for step, said in ((0, "t"), (4, "4"), (10, "v₀")):
        slide(trajectory, "trajectory-linear", step)
        expect(name).to_have_text(said)
        trajectory.wait_for_function(
            f"([plot, x]) => Math.abs(({TRACE})(plot, 'now').x[0] - x) < 1e-9",
            arg=[plot(trajectory, "trajectory-linear").element_handle(), path["x"][step]],
        )
        assert trace(trajectory, "trajectory-linear", "now")["y"] == [path["y"][step]]


def test_the_keyboard_moves_the_slider_and_it_says_where_it_is(trajectory):
    slider = trajectory.locator('.panel[data-name="map-linear"] input[type=range]')
    slider.focus()
    trajectory.keyboard.press("Home")
    expect(slider).to_have_attribute("aria-valuetext", "t")
    trajectory.keyboard.press("ArrowRight")
    expect(slider).to_have_attribute("aria-valuetext", "1")


def test_play_runs_to_the_end(trajectory):
    panel = trajectory.locator('.panel[data-name="map-linear"]')
    panel.get_by_role("button", name="Play").click()
    expect(panel.get_by_role("button", name="Stop")).to_be_visible()
    expect(panel.locator("output")).to_have_text("v₀")
    expect(panel.get_by_role("button", name="Play")).to_be_visible()
    path = trace(trajectory, "map-linear", "trajectory of the query")
    assert trace(trajectory, "map-linear", "now")["x"] == [path["x"][10]]


def test_another_method_moves_the_query_visibly(trajectory):
    def length():
        path = trace(trajectory, "map-linear", "trajectory of the query")
        return ((path["x"][0] - path["x"][10]) ** 2 + (path["y"][0] - path["y"][10]) ** 2) ** 0.5

    shipped = length()
    redrawn(trajectory, "#trajectory-figures", lambda: choose_method(trajectory, "Method", "DITS, l2"))
    assert length() > 20 * shipped
    redrawn(trajectory, "#trajectory-figures", lambda: choose_method(trajectory, "Method", "DITS"))
    assert length() == pytest.approx(shipped)


def test_steps_and_noise_redraw(trajectory):
    number = trajectory.locator("#trajectory-steps input[type=number]")
    before = trace(trajectory, "map-linear", "trajectory of the query")["x"]

    def steps(count):
        number.fill(str(count))
        number.press("Enter")
        number.blur()

    redrawn(trajectory, "#trajectory-figures", lambda: steps(5))
    expect(trajectory.locator("#trajectory-numbers")).to_contain_text("After 5 steps, the query has moved")
    redrawn(trajectory, "#trajectory-figures", lambda: steps(10))
    slider = trajectory.locator("#trajectory-noise input[type=range]")

    def noise(value):
        slider.fill(str(value))
        slider.dispatch_event("pointerup")

    redrawn(trajectory, "#trajectory-figures", lambda: noise(1))
    assert trace(trajectory, "map-linear", "trajectory of the query")["x"] != before
    redrawn(trajectory, "#trajectory-figures", lambda: noise(0))
    assert trace(trajectory, "map-linear", "trajectory of the query")["x"] == before


@pytest.mark.parametrize(
    ("field", "empty", "says"),
    [
        ("#trajectory-seed input", "", "The seed must be a whole number"),
        ("#trajectory-query textarea", "  ", "The query is empty"),
    ],
)
def test_an_empty_field_is_a_message_and_leaves_the_figures(trajectory, field, empty, says):
    box = trajectory.locator(field)
    before = box.input_value()
    box.fill(empty)
    box.press("Enter")
    message = trajectory.get_by_text(says)
    expect(message).to_be_visible()
    trajectory.get_by_role("button", name="Close").first.click()
    expect(message).to_be_hidden()
    box.fill(before)
    box.press("Enter")
    expect(trajectory.locator("#trajectory-figures .panel")).to_have_count(4)


def test_diffusion_is_drawn_for_comparison(trajectory):
    box = trajectory.get_by_label("Compare with diffusion from 3 Gaussian starts")
    redrawn(trajectory, "#trajectory-figures", box.check)
    assert len(trace(trajectory, "map-linear", "diffusion")["x"]) == 3 * 12  # 11 points and a break
    assert len(trace(trajectory, "map-linear", "now")["x"]) == 4
    expect(trajectory.locator("#trajectory-numbers")).to_contain_text("Diffusion from 3 Gaussian starts")
    redrawn(trajectory, "#trajectory-figures", box.uncheck)


def test_a_clicked_point_of_the_trajectory_lists_its_clip_and_neighbours(trajectory):
    path = trace(trajectory, "trajectory-linear", "trajectory of the query")
    click(trajectory, "trajectory-linear", path["x"][0], path["y"][0])
    chosen = trajectory.locator("#trajectory-chosen")
    expect(chosen).to_contain_text("Chosen: 1 point")
    expect(chosen).to_contain_text("(dits), step t:")
    expect(chosen.locator("video")).to_have_count(1)
    expect(chosen.locator("ol")).to_have_count(2)
    expect(chosen.locator("ol").first.locator("li")).to_have_count(5)


def test_what_is_looked_at_closely_stays_within_its_axes(trajectory):
    """Also after the URL has changed since the figure was drawn, as it does after a second query."""
    figure = plot(trajectory, "trajectory-linear")
    figure.evaluate("plot => plot.scrollIntoView({ block: 'end', behavior: 'instant' })")
    box, margin = figure.bounding_box(), figure.evaluate("plot => plot._fullLayout._size.t")
    # Above the axes, left of plotly.js's tools, and well below what Gradio says of errors.
    above = {"x": box["x"], "y": box["y"], "width": 0.65 * box["width"], "height": margin - 8}
    nothing = trajectory.screenshot(clip=above)
    address = trajectory.evaluate("location.href")
    trajectory.evaluate("history.replaceState(history.state, '', '?tab=trajectory&q=another')")
    low, high = (bound(trace(trajectory, "trajectory-linear", "trajectory of the query")["y"]) for bound in (min, max))
    middle, part = (low + high) / 2, (high - low) / 8
    figure.evaluate("(plot, range) => Plotly.relayout(plot, { 'yaxis.range': range })", [middle - part, middle + part])
    assert trajectory.screenshot(clip=above) == nothing
    figure.evaluate("plot => Plotly.relayout(plot, { 'xaxis.autorange': true, 'yaxis.autorange': true })")
    trajectory.evaluate("address => history.replaceState(history.state, '', address)", address)


@pytest.mark.parametrize(("view", "panel"), [("UMAP", "map-umap"), ("PCA", "map-pca"), ("Linear", "map-linear")])
def test_every_map_is_drawn(trajectory, view, panel):
    choice = trajectory.locator("#trajectory-view").get_by_role("radio", name=view)
    if not choice.is_checked():
        redrawn(trajectory, "#trajectory-figures", choice.check)
    path = trace(trajectory, panel, "trajectory of the query")
    assert len(set(path["x"][:11])) == 11
    expect(trajectory.locator(f'.panel[data-name="{panel}"] > p')).to_contain_text("trustworthiness")


def test_three_dimensions_are_drawn_and_move(trajectory):
    box = trajectory.locator("#trajectory-three input")
    redrawn(trajectory, "#trajectory-figures", box.check)
    canvas = plot(trajectory, "map-linear").locator("canvas").first
    expect(canvas).to_be_visible()
    path = trace(trajectory, "map-linear", "trajectory of the query")
    slide(trajectory, "map-linear", 0)
    trajectory.wait_for_function(
        f"([plot, z]) => ({TRACE})(plot, 'now').z[0] === z",
        arg=[plot(trajectory, "map-linear").element_handle(), path["z"][0]],
    )
    redrawn(trajectory, "#trajectory-figures", box.uncheck)


def test_going_away_and_coming_back_keeps_what_is_shown(trajectory):
    trajectory.locator("#trajectory-figures .panel").first.evaluate("panel => panel.dataset.mine = 1")
    slide(trajectory, "map-linear", 3)
    trajectory.get_by_role("tab", name="Search").click()
    trajectory.get_by_role("tab", name="Trajectory").click()
    expect(trajectory.locator("#trajectory-figures .panel[data-mine]")).to_be_visible()
    expect(trajectory.locator('.panel[data-name="map-linear"] output')).to_have_text("3")


# Downloads


@pytest.mark.parametrize(
    "panel", ["map-linear", *(pytest.param(name, marks=pytest.mark.slow) for name in ("places", "trajectory"))]
)
def test_every_download_is_what_it_says(trajectory, browser, tmp_path, panel):
    figure = trajectory.locator(f'.panel[data-name="{panel}"]')
    heading = figure.locator("h3").inner_text()
    width = plot(trajectory, panel).bounding_box()["width"]

    image = Image.open(io.BytesIO(download(trajectory, figure, "PNG", f"{panel}.png")))
    assert image.format == "PNG"
    assert image.width == pytest.approx(2 * width, abs=4)
    assert len(image.convert("RGB").getcolors(1 << 24)) > 20
    root = ET.fromstring(download(trajectory, figure, "SVG", f"{panel}.svg"))
    assert root.tag == "{http://www.w3.org/2000/svg}svg"
    assert float(root.get("width")) == pytest.approx(width, abs=2)
    assert root.findall(".//{http://www.w3.org/2000/svg}path")

    table = pd.read_csv(io.BytesIO(download(trajectory, figure, "CSV", f"{panel}.csv")))
    assert list(table.columns) == ["trace", "x", "y", "z", "text"]
    drawn = plot(trajectory, panel).evaluate(
        "plot => plot.data.map((trace) => [trace.name, Array.from(trace.x?._inputArray ?? trace.x ?? []).length])"
    )
    assert len(table) > 10
    assert len(drawn) > 0

    path = tmp_path / f"{panel}.html"
    path.write_bytes(download(trajectory, figure, "HTML", path.name))
    context = browser.new_context(offline=True)
    page = context.new_page()
    problems = []
    page.on("pageerror", lambda error: problems.append(str(error)))
    page.on("console", lambda message: problems.append(message.text) if message.type == "error" else None)
    page.goto(path.as_uri())
    expect(page.locator("#plot .main-svg").first).to_be_visible()
    expect(page.locator("h1")).to_have_text(heading)
    assert len(page.locator("#plot").evaluate("plot => plot.data")) == len(drawn)
    assert problems == []
    context.close()


def download(page, figure, kind, name):
    with page.expect_download() as started:
        figure.get_by_role("button", name=re.compile(f" as {kind}$")).click()
    assert started.value.suggested_filename == name
    return open(started.value.path(), "rb").read()


# The gap


def test_both_methods_are_in_the_table_and_figures(gap):
    heads = gap.locator("#gap-numbers thead th").all_inner_texts()
    assert heads == ["measure", "text t, ranked by DITS", "DITS", "DITS, l2"]
    recall = gap.locator("#gap-numbers tbody tr").first.locator("td").all_inner_texts()
    assert len(recall) == 3
    assert all(0 < float(value) < 100 for value in recall)
    drawn = plot(gap, "measures").evaluate("plot => plot._fullData.map((trace) => trace.name)")
    assert {"DITS", "DITS, l2"} <= set(drawn)
    assert plot(gap, "map-linear-dits").is_visible()
    assert plot(gap, "map-linear-dits-l2").is_visible()


def test_the_slider_moves_the_modalities_and_says_what_it_does_to_recall(gap):
    panel = gap.locator('.panel[data-name="shift"]')
    said = panel.locator("output")
    expect(said).to_contain_text("0% closed")
    before = {name: trace(gap, "shift", name)["x"] for name in ("text", "video")}
    middle = sum(before["video"]) / len(before["video"]) - sum(before["text"]) / len(before["text"])
    slide(gap, "shift", 10)
    expect(said).to_have_text(re.compile(r"100% closed: distance 0\.0\d\d, R@1 \d+\.\d"))
    gap.wait_for_function(
        f"([plot, x]) => ({TRACE})(plot, 'text').x[0] !== x",
        arg=[plot(gap, "shift").element_handle(), before["text"][0]],
    )
    after = {name: trace(gap, "shift", name)["x"] for name in ("text", "video")}
    left = sum(after["video"]) / len(after["video"]) - sum(after["text"]) / len(after["text"])
    assert abs(left) < 0.15 * abs(middle)
    slide(gap, "shift", 0)


def test_a_clicked_clip_is_listed_with_its_true_neighbours(gap, engine):
    points = trace(gap, "map-linear-dits", "video")
    clips = engine.corpus.split("test").clips
    index = max(range(len(clips)), key=lambda at: points["x"][at])  # at the edge: nothing lies over it
    click(gap, "map-linear-dits", points["x"][index], points["y"][index])
    chosen = gap.locator("#gap-chosen")
    expect(chosen).to_contain_text("Chosen: 1 point")
    expect(chosen.locator("li span")).to_have_text(clips[index].captions[0])
    expect(chosen.locator("ol").first.locator("li").first).to_contain_text("1.000")
    expect(chosen).to_be_in_viewport()


def test_a_lasso_lists_several_points(gap):
    figure = gap.locator('.panel[data-name="map-linear-dits"]')
    figure.scroll_into_view_if_needed()
    figure.locator(".plot").hover()
    figure.locator('.modebar-btn[data-title="Lasso Select"]').click()
    area = figure.locator(".nsewdrag").first.bounding_box()
    middle = area["x"] + area["width"] / 2, area["y"] + area["height"] / 2
    gap.mouse.move(*middle)
    gap.mouse.down()
    for x, y in ((0, 0), (0, 60), (70, 60), (70, -60), (0, -60), (0, 0)):
        gap.mouse.move(middle[0] + x, middle[1] + y, steps=4)
    gap.mouse.up()
    chosen = gap.locator("#gap-chosen")
    expect(chosen.locator("h3")).to_have_text(re.compile(r"Chosen: (\d+ of )?\d\d+ points"))
    assert chosen.locator("video").count() > 1


@pytest.mark.slow
def test_the_last_choice_is_shown(gap):
    """The second choice comes while the first is computed."""
    cosine = gap.locator("#gap-numbers tr", has_text="Cosine of pairs").first.locator("td").first
    before = cosine.text_content()
    side = gap.locator("#gap-side")
    side.get_by_label("frames pooled by its own caption").check()
    expect(cosine).not_to_have_text(before)
    pooled = cosine.text_content()
    gap.locator("#gap-split").get_by_label("validation").check()  # takes seconds, of this side for the first time
    side.get_by_label("mean of its frames").check()
    gap.locator("#gap-split").get_by_label("test").check()
    expect(cosine).to_have_text(before)
    assert float(pooled[:5]) > float(before[:5])  # it looks closer by construction


# How it looks


@pytest.mark.parametrize(
    ("theme", "tab", "figures", "count"),
    [
        ("light", "Trajectory", "#trajectory-figures", 4),
        ("dark", "Modality gap", "#gap-maps", 2),
        pytest.param("dark", "Trajectory", "#trajectory-figures", 4, marks=pytest.mark.slow),
        pytest.param("light", "Modality gap", "#gap-maps", 2, marks=pytest.mark.slow),
    ],
)
def test_a_telephone_shows_it_in_the_colours_of_the_theme(browser, app_url, theme, tab, figures, count):
    phone = {"viewport": {"width": 390, "height": 844}}
    with watched(browser, f"{app_url}?__theme={theme}", tab, figures, count, **phone) as page:
        assert page.evaluate("document.documentElement.scrollWidth") <= 390
        assert page.locator(f"{figures} .plot").first.evaluate("plot => plot.scrollWidth <= plot.clientWidth")
        colours = json.dumps(
            page.locator(".plot.js-plotly-plot").evaluate_all("plots => plots.map((p) => [p.data, p.layout])")
        )
        own, other = PALETTES[theme], PALETTES["dark" if theme == "light" else "light"]
        assert {own.text, own.video, own.ink, own.grid} <= set(re.findall(r"#[0-9a-fA-F]{6}", colours))
        assert not {other.text, other.video, other.ink, other.grid} & set(re.findall(r"#[0-9a-fA-F]{6}", colours))


@pytest.mark.slow
def test_figures_that_were_drawn_out_of_sight_get_their_width(browser, app_url):
    with visit(browser, app_url, viewport={"width": 820, "height": 900}) as page:
        page.get_by_role("tab", name="Trajectory").click()
        page.get_by_role("tab", name="Search").click()  # at once: the figures come while nobody looks
        expect(page.locator("#trajectory-figures .js-plotly-plot")).to_have_count(4)
        page.get_by_role("tab", name="Trajectory").click()
        figure = page.locator("#trajectory-figures .panel").first
        page.wait_for_function(
            "figure => Math.abs(figure.querySelector('.main-svg').clientWidth - figure.clientWidth) < 2",
            arg=figure.element_handle(),
        )
        assert page.evaluate("document.documentElement.scrollWidth") <= 820


def test_a_theme_that_changes_redraws(browser, app_url):
    with watched(browser, app_url + "?__theme=light", "Trajectory", "#trajectory-figures", 4) as page:
        redrawn(page, "#trajectory-figures", lambda: page.evaluate("document.body.classList.add('dark')"))
        colour = plot(page, "map-linear").evaluate(
            "plot => plot.data.find((trace) => trace.name === 'text').marker.color"
        )
        assert colour == PALETTES["dark"].text


def test_figures_have_descriptions_for_screen_readers(trajectory):
    for figure in trajectory.locator("#trajectory-figures .plot").all():
        assert len(figure.get_attribute("aria-label")) > 40
    assert trajectory.locator("#trajectory-figures .tools button:not([aria-label])").count() == 0


def click(page, panel, x, y):
    """Clicks where a figure has drawn a point."""
    figure = plot(page, panel)
    figure.scroll_into_view_if_needed()
    left, top = figure.evaluate(
        """(plot, [x, y]) => {
          const { xaxis, yaxis } = plot._fullLayout;
          const box = plot.getBoundingClientRect();
          return [box.left + xaxis._offset + xaxis.l2p(x), box.top + yaxis._offset + yaxis.l2p(y)];
        }""",
        [x, y],
    )
    page.mouse.move(0, 0)
    page.mouse.move(left, top)  # at once: plotly.js looks 20 times a second, and forgets a click where a look is due
    expect(figure.locator(".hoverlayer .hovertext").first).to_be_visible()
    page.mouse.down()
    page.mouse.up()
