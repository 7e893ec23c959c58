"""The site is built strictly, is complete, and works in a browser, from a folder."""

import importlib
import importlib.util
import json
import re
import shutil
import sys
from pathlib import Path

import pytest
import torch

import aptt.loss
from aptt.cli.catalogue import entries, find
from aptt.cli.curve import curve_of
from aptt.report import drawing, trace

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT))  # the builder is no part of the package

if importlib.util.find_spec("sphinx") is None:
    pytest.skip("sphinx is not installed; it comes with aptt[docs]", allow_module_level=True)

site = importlib.import_module("docs.builder.site")
pages = importlib.import_module("docs.builder.pages")
explorer = importlib.import_module("docs.builder.explorer")


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    out = tmp_path_factory.mktemp("site") / "html"
    with pytest.MonkeyPatch.context() as patch:
        # where the axes lie within a picture is not looked at, and takes half of its drawing
        patch.setitem(drawing._STYLE, "figure.constrained_layout.use", False)
        assert site.build(out, points=13) == 0  # of 49 or 121: fewer prove as much
    return out


@pytest.fixture(scope="module")
def grids(built):
    text = (built / "_static" / "explorer-data.js").read_text()
    return json.loads(text.removeprefix("window.APTT_EXPLORER=").removesuffix(";\n"))


def test_every_loss_has_its_page_and_every_link_an_end(built):
    assert site.check(built) == []
    (built / "losses" / "giou_loss.html").rename(built / "losses" / "other_loss.html")
    problems = site.check(built)
    (built / "losses" / "other_loss.html").rename(built / "losses" / "giou_loss.html")
    assert "giou_loss: a loss without a page" in problems
    assert "other_loss: a page without a loss" in problems
    assert "losses/focal_loss.html: giou_loss.html leads nowhere" in problems


def test_a_page_says_what_the_docstring_and_the_audit_say(built):
    text = (built / "losses" / "focal_loss.html").read_text()
    for part in (
        "Lin et al.",
        "Use when",
        "Differs from",
        "confidently wrong",
        "bfloat16",
        "0.1002",
    ):
        assert part in text
    assert "Move its options" in text
    boxes = (built / "losses" / "giou_loss.html").read_text()
    assert "where  I, U, C: areas of intersection" in boxes
    assert "Gevorgyan" not in boxes


def test_no_page_shows_an_address(built):
    for path in built.rglob("*.html"):
        assert not re.search(r"\bat\s+0x[0-9a-f]{6}", re.sub("<[^>]+>", "", path.read_text())), path


def test_only_a_loss_with_options_says_that_they_can_be_moved(built, grids):
    for name, grid in grids.items():
        text = (built / "losses" / f"{name}.html").read_text()
        assert ("Move its options" in text) == bool(grid["options"]), name
        assert ("it has no option that bends it" in text) != bool(grid["options"]), name


def test_every_loss_with_an_option_that_bends_it_has_a_slider(grids):
    assert not grids["rmse_loss"]["options"]
    assert not grids["l1_loss"]["options"]
    for name, option in (
        ("giou_loss", "power"),
        ("varifocal_loss", "alpha"),
        ("varifocal_loss", "gamma"),
        ("quality_focal_loss", "beta"),
        ("si_sdr_loss", "cap"),
        ("focal_tversky_loss", "gamma"),
        ("heatmap_loss", "kind"),
        ("huber_loss", "delta"),  # which no table names
    ):
        assert option in {o["name"] for o in grids[name]["options"]}, name


def test_the_tables_of_losses_lead_to_their_pages(built):
    text = (built / "index.html").read_text()
    for name in ("giou_loss", "dice_ce_loss", "permutation_invariant_loss"):
        assert f'href="losses/{name}.html"' in text


def test_an_unknown_link_stops_the_build(tmp_path):
    with pytest.raises(
        FileNotFoundError, match=r"README.md links to docs/no.md, which is not there"
    ):
        site._linked("[x](docs/no.md)", ROOT / "README.md", {}, tmp_path)


def test_the_explorer_holds_what_the_losses_compute(grids):
    assert len(grids) >= 0.5 * len(entries())
    for name, grid in grids.items():
        function, probe = curve_of(find(name))
        index = 0
        options = {}
        for option in grid["options"]:
            at = len(option["values"]) - 1
            index = index * len(option["values"]) + at
            options[option["name"]] = option["values"][at]
        made = grid["curves"][index]
        if made is None:  # options that do not go together
            continue
        curve = trace(function, probe, points=len(grid["at"]), **options)
        torch.testing.assert_close(made, [curve.values, curve.slopes], rtol=1e-5, atol=1e-300)


# ---------------------------------------------------------------------------------- a browser


@pytest.fixture(scope="module")
def browser():
    if importlib.util.find_spec("playwright") is None:
        pytest.skip("playwright is not installed; it comes with aptt[docs]")
    path = shutil.which("chromium") or shutil.which("google-chrome")
    if path is None:
        pytest.skip("no chromium on this machine (on Debian: apt-get install chromium)")
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture
def page(browser):
    """A page that no error of the console escapes."""
    page = browser.new_page()
    said = []
    page.on("console", lambda m: said.append(m.text) if m.type in ("error", "warning") else None)
    page.on("pageerror", lambda error: said.append(str(error)))
    page.on("requestfailed", lambda request: said.append(f"failed: {request.url}"))
    yield page
    page.close()
    assert said == []


PLACES = [
    "index.html",
    "losses/index.html",
    "losses/cross_entropy.html",
    "explorer.html",
    "audit.html",
    "migration.html",
]


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("place", PLACES)
def test_a_page_loads_and_fits_the_screen(built, page, place, width):
    page.set_viewport_size({"width": width, "height": 800})
    page.goto(f"file://{built}/{place}")
    assert page.locator("h1").count() == 1
    assert page.evaluate("document.documentElement.scrollWidth") <= width


def test_a_slider_moves_the_curve_to_what_python_computes(built, grids, page):
    page.goto(f"file://{built}/explorer.html#focal_loss")
    grid = grids["focal_loss"]
    names = {option["name"]: option["values"] for option in grid["options"]}
    before = page.locator("#value + svg polyline.now").get_attribute("points")
    chosen = {}
    for name, index in (("gamma", 6), ("alpha", 3)):
        page.locator(f"#option-{name}").fill(str(index))
        chosen[name] = names[name][index]
    page.locator("#position").fill("10")
    x = torch.tensor(grid["at"][10], dtype=torch.float64, requires_grad=True)
    logits = x * x.new_tensor([[1.0, 0.0, 0.0]])
    value = aptt.loss.focal_loss(logits, torch.tensor([0]), **chosen)
    (slope,) = torch.autograd.grad(value, x)
    for which, wanted in (("value", value), ("gradient", slope)):
        shown = float(page.locator(f"#{which}").inner_text().split()[-1])
        assert shown == pytest.approx(wanted.item(), rel=1e-5)
    assert page.locator("#value + svg polyline.now").get_attribute("points") != before
    page.locator("#loss").select_option("giou_loss")
    assert page.locator("#option-gamma").count() == 0
    assert page.locator("#option-power").count() == 1
    assert page.url.endswith("#giou_loss")


def test_a_slider_says_its_value_and_the_axes_have_ticks(built, grids, page):
    page.goto(f"file://{built}/explorer.html?loss=focal_loss")
    assert page.locator("#loss").input_value() == "focal_loss"
    (gamma,) = [o for o in grids["focal_loss"]["options"] if o["name"] == "gamma"]
    slider = page.locator("#option-gamma")
    for index in (0, len(gamma["values"]) - 1):
        slider.fill(str(index))
        assert float(slider.get_attribute("aria-valuetext")) == gamma["values"][index]
    assert page.locator("#position").get_attribute("aria-valuetext")
    marks = "#value + svg text.tick-y"
    assert page.locator(marks).count() >= 3
    assert page.locator("#value + svg text.tick-x").count() >= 3


def test_the_switch_fits_the_axis_to_all_curves(built, grids, page):
    def height(curves):
        values = [value for curve in curves if curve for value in curve[0]]
        return max(values) - min(values)

    def usual(grid):
        index = 0
        for option in grid["options"]:
            index = index * len(option["values"]) + option["usual"]
        return grid["curves"][index]

    name = next(n for n, g in grids.items() if height(g["curves"]) > 3 * height([usual(g)]) > 0)
    page.goto(f"file://{built}/explorer.html?loss={name}")
    marks = page.locator("#value + svg text.tick-y")
    fitted = marks.all_text_contents()
    page.locator("#fit").uncheck()
    assert marks.all_text_contents() != fitted


def test_the_explorer_opens_at_a_loss_and_says_where_nothing_can_be_moved(built, page):
    page.goto(f"file://{built}/explorer.html?loss=dice_loss")
    assert page.locator("#loss").input_value() == "dice_loss"
    assert page.locator("#note").inner_text() == ""
    page.locator("#loss").select_option("rmse_loss")
    assert page.locator("#note").inner_text() == "rmse_loss has no option that bends this curve."
    page.evaluate("location.hash = '#heatmap_loss'")
    page.locator("#option-kind").wait_for()
    page.locator("#option-kind").select_option("focal")
    assert page.locator("#loss").input_value() == "heatmap_loss"


def test_what_is_cut_on_a_phone_shows_that_it_goes_on(built, page):
    page.set_viewport_size({"width": 390, "height": 800})
    page.goto(f"file://{built}/index.html")
    wide = page.locator(".table-wrapper").first
    assert "gradient" in wide.evaluate("e => getComputedStyle(e).backgroundImage")
    assert wide.evaluate("e => e.scrollWidth <= e.clientWidth")
    page.goto(f"file://{built}/boxes.html")
    assert page.locator(".panels-boxes svg").count() == 6


def test_the_gallery_leads_to_a_loss_and_on_to_its_place_in_the_explorer(built, page):
    page.goto(f"file://{built}/losses/index.html")
    page.locator("a.card", has_text="dice_loss").first.click()
    assert page.locator("h1").inner_text().startswith("dice_loss")
    page.get_by_text("Move its options").click()
    assert page.locator("#loss").input_value() == "dice_loss"


def test_search_finds_a_loss(built, page):
    page.goto(f"file://{built}/index.html")
    page.locator("input[name=q]").first.fill("tversky")
    page.locator("input[name=q]").first.press("Enter")
    found = page.locator("ul.search a", has_text="focal_tversky_loss").first
    found.wait_for()
    found.click()
    assert "focal_tversky_loss" in page.locator("h1").inner_text()


def test_a_training_report_loads_too(browser, tmp_path, page):
    from aptt.report import Figure, Formula, Group, Page, Row, Section, Table, curves, svg, write

    drawn = svg(curves({"a": [([0, 1, 2], [3.0, 2.0, 1.0])]}, across="step"), (5, 2.8))
    section = Section(
        "one",
        "One",
        "A story.",
        Table(["loss", "score"], [Row(["a", "1.0"], 0)]),
        [Group("Curves", "As drawn.", 340, [Figure("loss", "A line.", drawn)])],
        [Formula("a", "what it is", "x = y")],
    )
    write(Page("Title", "Summary", "aptt train", {"aptt": "0"}, [section]), tmp_path / "r.html")
    page.goto(f"file://{tmp_path}/r.html")
    assert page.locator("figure svg").count() == 1
    page.set_viewport_size({"width": 390, "height": 800})
    assert page.evaluate("document.documentElement.scrollWidth") <= 390
    assert "score" in page.locator("td").nth(1).evaluate(
        "e => getComputedStyle(e, '::before').content"
    )
    colour = page.locator("figure svg path[style*=series]").first
    assert colour.evaluate("e => getComputedStyle(e).stroke") not in ("none", "rgb(0, 0, 0)")
