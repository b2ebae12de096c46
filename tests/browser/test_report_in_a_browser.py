"""The page as a browser shows it: nothing fails, names stay text, a click hides a criterion, it fits and prints."""

import json
import shutil
import time
from importlib.util import find_spec

import pytest
from causalprune_cli.main import main

from causalprune.analysis.plots.chart import Axis, Curve, Fall, FallChart, HeatMap, LineChart
from causalprune.analysis.plots.colors import look_of
from causalprune.analysis.plots.draw import draw
from causalprune.analysis.plots.interactive import figure_of, plotly_script
from causalprune.analysis.report.page import Link, Page, Picture

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = [
    pytest.mark.skipif(find_spec("playwright") is None, reason="needs playwright"),
    pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium on the PATH"),
    pytest.mark.skipif(find_spec("plotly") is None, reason="needs plotly"),
]

PATIENCE = 120
"""Seconds, on a machine that does much else."""

HOSTILE = "<img src=x onerror=alert(1)></script><script>alert(2)</script><b>%{x} & \"'"


@pytest.fixture(scope="module")
def browser():
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        # Root has no sandbox of its own, and a container little shared memory.
        arguments = ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"]
        browser = playwright.chromium.launch(executable_path=CHROMIUM, args=arguments)
        yield browser
        browser.close()


def wait_until(page, expression, argument=None):
    """Wait for an expression to hold; Playwright's own way needs eval, which the page forbids."""
    ends = time.monotonic() + PATIENCE
    while not page.evaluate(expression, argument):
        assert time.monotonic() < ends, expression
        page.wait_for_timeout(50)


@pytest.fixture
def show(browser):
    """Opens a file; the page has ``errors``, what went to its console or was thrown, and ``dialogs``."""
    contexts = []

    def show(path, width=1000, scheme="light"):
        context = browser.new_context(viewport={"width": width, "height": 900}, color_scheme=scheme)
        contexts.append(context)
        page = context.new_page()
        page.set_default_timeout(1000 * PATIENCE)
        page.errors = []
        page.on("console", lambda message: page.errors.append(message.text) if message.type == "error" else None)
        page.on("pageerror", lambda error: page.errors.append(str(error)))
        page.on("dialog", lambda dialog: (page.errors.append(dialog.message), dialog.dismiss()))
        page.on("request", lambda request: page.errors.append(request.url) if "http" in request.url[:4] else None)
        page.goto(path.as_uri())
        page.wait_for_selector(".drawn .main-svg")
        return page

    yield show
    for context in contexts:
        context.close()


@pytest.fixture(scope="module")
def hostile(tmp_path_factory):
    """A page all of whose names are markup."""
    folder = tmp_path_factory.mktemp("hostile")
    page = Page(HOSTILE, plotly_script())
    page.heading(HOSTILE)
    page.text(HOSTILE, "found")
    page.table(["criterion", HOSTILE], [[HOSTILE, "1"]], "t.csv")
    page.facts([(HOSTILE, [HOSTILE, Link(HOSTILE, "./x")])], summary=HOSTILE)
    x = Axis(HOSTILE, ((0.0, HOSTILE), (1.0, "90")), low=-0.1, high=1.1)
    curves = [
        Curve(name, (0.0, 1.0), (y, 0.2), look_of(name).color, "o", "-", (0.1, 0.1), ((1.0, 0.3),), (name, name))
        for name, y in ((HOSTILE, 0.9), ("magnitude", 0.7))
    ]
    charts = [
        LineChart(HOSTILE, x, Axis(HOSTILE), tuple(curves), 0.95),
        HeatMap(HOSTILE, HOSTILE, (HOSTILE, "b"), (HOSTILE,), ((0.1, 0.9),), ((HOSTILE, "2"),)),
        FallChart(HOSTILE, x, (Fall(HOSTILE, "#0072B2", "o", 0.5, 0.1, 0.2, HOSTILE),)),
    ]
    pictures = []
    for number, chart in enumerate(charts):
        draw(chart, folder / f"{number}.png")
        pictures.append(Picture(folder / f"{number}.png", HOSTILE, figure_of(chart)))
    page.pictures(pictures)
    (folder / "index.html").write_text(page.html())
    return folder / "index.html"


def test_names_stay_text(hostile, show):
    page = show(hostile)
    wait_until(page, "document.querySelectorAll('.drawn .main-svg').length >= 3")
    assert page.errors == []
    assert page.locator("img[src=x]").count() == 0
    assert page.locator("b").count() == 0
    assert page.title() == " ".join(HOSTILE.split())
    legend = page.locator(".legendtext").all_text_contents()
    assert HOSTILE in legend
    assert page.locator(".gtitle").first.text_content() == HOSTILE
    # What the pointer shows is text, too.
    box = page.locator(".drawn .nsewdrag").first.bounding_box()
    page.mouse.move(box["x"] + box["width"] * 0.1 / 1.2, box["y"] + box["height"] * 0.1)
    page.wait_for_timeout(300)
    page.evaluate("Plotly.Fx.hover(document.querySelector('.js-plotly-plot'), [{curveNumber: 3, pointNumber: 0}])")
    assert HOSTILE in page.locator(".hovertext").first.text_content()
    assert page.errors == []


def test_a_click_on_the_legend_hides_a_criterion_and_all_that_is_its(hostile, show):
    page = show(hostile)
    traces = "document.querySelector('.js-plotly-plot').data.map((trace) => [trace.legendgroup || '', trace.visible])"
    page.locator(".legendtoggle").nth(1).click()
    wait_until(page, f"{traces}.some((one) => one[1] === 'legendonly')")
    hidden = [group for group, visible in page.evaluate(traces) if visible == "legendonly"]
    # Band, dots and line of one curve.
    assert hidden == ["curve-0"] * 3


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [400, 800, 1400])
def test_it_fits_and_has_the_colors_of_its_page(hostile, show, width, scheme):
    page = show(hostile, width, scheme)
    assert page.errors == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for box in (one.bounding_box() for one in page.locator(".drawn .main-svg").all()):
        assert box["x"] + box["width"] <= width
    color = "getComputedStyle(document.querySelector('{}')).backgroundColor".format
    ground, plot = page.evaluate(color("body")), page.evaluate(color(".main-svg"))
    assert ground == {"light": "rgb(255, 255, 255)", "dark": "rgb(22, 24, 29)"}[scheme]
    assert plot.replace(" ", "") == ground.replace(" ", "")


def test_paper_has_the_pictures(hostile, show):
    page = show(hostile, scheme="dark")
    page.emulate_media(media="print")
    assert page.locator(".drawn .chart").first.is_hidden()
    assert page.locator(".drawn img").first.is_visible()
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"


def test_a_sweep_of_several_settings(tmp_path, show, capsys):
    options = ["--dataset", "breast-cancer", "--model", "mlp", "--hidden", "8", "--pretrain-epochs", "2"]
    options += ["--record-epochs", "1", "--criterion", "effect,magnitude", "--sparsity", "0.3,0.6,0.9", "--seeds", "2"]
    options += ["--vary", "apply-mask.scope=global,layer", "--run", str(tmp_path), "--quiet"]
    assert main(["sweep", *options]) == 0
    capsys.readouterr()
    assert main(["report", "--run", str(tmp_path), "--quiet", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["metrics"]
    page = show(tmp_path / "report/index.html")
    # All are drawn once they were near the screen.
    for figure in page.locator("figure:has([data-chart])").all():
        figure.scroll_into_view_if_needed()
        wait_until(page, "(one) => one.classList.contains('drawn')", figure.element_handle())
    assert page.errors == []
    assert page.locator("figure").count() == len([p for p in result["pictures"] if "-dark" not in p])
    assert page.locator(".js-plotly-plot").count() == page.locator("figure").count()
    # Together, each line is a criterion's color with a dash of its setting.
    together = page.evaluate(
        "document.querySelector('.js-plotly-plot').data.filter((t) => t.legendgroup && t.showlegend !== false)"
        ".map((t) => [t.name, t.line.color, t.line.dash])"
    )
    colors = {name: look_of(name).color for name in ("effect", "magnitude")}
    dashes = {"global": "solid", "layer": "dash"}
    expected = [
        [f"{criterion}, apply-mask.scope={scope}", colors[criterion], dashes[scope]]
        for scope in dashes
        for criterion in colors
    ]
    assert together == expected
    assert page.locator("p.found").first.text_content() == result["found"][0]
    for link in page.locator("a[href^='./'], a[href$='.csv']").all():
        target = tmp_path / "report" / link.get_attribute("href")
        assert target.resolve().is_file()
