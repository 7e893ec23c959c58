import re
from dataclasses import replace
from math import nan
from types import SimpleNamespace

import pytest

from aptt.cli.pages import _progress, _smooth
from aptt.recipes.results import Study
from aptt.recipes.training import Check, Run
from aptt.report import Figure, Formula, Group, Page, Row, Section, Sound, Table, curves, svg, write


@pytest.fixture
def page():
    drawing = svg(
        curves({"a": [([0, 1], [1.0, 0.5])], "b": [([0, 1], [1.0, 0.2])]}, across="t"), (4, 3)
    )
    return Page(
        title="A title",
        summary="A summary.",
        command="aptt train --out 'a <b>'",
        facts={"seed": "0"},
        sections=[
            Section(
                name="task",
                title="A task",
                story="A story.",
                table=Table(
                    ["loss", "score"], [Row(["a", "0.1"], 0), Row(["b", "0.2"], 1)], ["A note."]
                ),
                groups=[
                    Group(
                        "Curves", "A caption.", 300, [Figure("falling", "Falling lines", drawing)]
                    )
                ],
                formulas=[Formula("a", "About a.", "loss = x < y", "Somebody 2020.")],
                sources=["The data."],
                sounds=[Sound("a mixture", b"RIFF")],
            )
        ],
    )


@pytest.fixture
def html(page, tmp_path):
    path = tmp_path / "new" / "report.html"
    write(page, path)
    return path.read_text(encoding="utf-8")


def test_everything_is_on_the_page(html):
    for text in (
        "A title",
        "A summary.",
        "A story.",
        "A note.",
        "A caption.",
        "About a.",
        "The data.",
    ):
        assert text in html


def test_the_page_needs_no_other_file(html):
    assert not re.search(r'<(script|iframe|link(?! rel="icon" href="data:))\b', html)
    assert not re.search(r"(src|href)=\"(?!#|data:)", html.replace("xlink:href", "href"))
    assert "@import" not in html


def test_a_recording_can_be_heard_in_the_page(html):
    heard = '<figcaption>a mixture</figcaption><audio controls preload="none" src="{}">'
    assert heard.format("data:audio/wav;base64,UklGRg==") in html


def test_text_is_escaped(html):
    assert "&lt;b&gt;" in html
    assert "loss = x &lt; y" in html


def test_a_picture_is_said_in_words(html):
    assert 'role="img" aria-label="Falling lines"' in html


def test_a_command_in_a_note_is_code(page, tmp_path):
    table = replace(page.sections[0].table, notes=["better; try: `aptt compare x <y>`"])
    path = tmp_path / "report.html"
    write(replace(page, sections=[replace(page.sections[0], table=table)]), path)
    assert "try: <code>aptt compare x &lt;y&gt;</code>" in path.read_text(encoding="utf-8")


def test_each_loss_is_drawn_as_it_is():
    recipe = SimpleNamespace(scores={"score": "how good"})
    runs = []
    for loss, values in (("falls", [2.0, 1.0]), ("below zero", [1.0, -200.0]), ("lost", [1, nan])):
        run = Run(loss, 0, 2, None, values)
        run.checks = [Check(0, {"score": 0.0}), Check(2, {"score": 1.0})]
        runs.append(run)
    first, losses = _progress(Study(recipe, runs))
    assert [figure.title for figure in first.figures] == ["score"]
    assert [figure.title for figure in losses.figures] == ["falls", "below zero", "lost"]
    for series, figure in enumerate(losses.figures):
        assert f"stroke: var(--series-{series})" in figure.svg
    assert _smooth(runs[1])[1] == [1.0, -99.5]


def test_a_row_has_the_colour_of_its_line(html):
    assert re.findall(
        r'<td data-label="loss" class="dot" style="--series: (var\(--series-\d\))">(\w)</td>', html
    ) == [
        ("var(--series-0)", "a"),
        ("var(--series-1)", "b"),
    ]
    assert "stroke: var(--series-0)" in html
    assert "stroke: var(--series-1)" in html


def test_every_colour_of_a_drawing_is_defined_by_the_page(html):
    used = set(re.findall(r"var\((--[a-z0-9-]+)\)", html)) - {"--width", "--series"}
    light, dark = (set(re.findall(r"(--[a-z0-9-]+):", block)) for block in html.split("@media")[:2])
    assert used <= light
    assert used - {"--width"} <= dark | light


def test_a_drawing_is_the_same_each_time_and_has_real_text():
    first, second = (
        svg(curves({"a": [([0, 1], [1.0, 0.5])]}, across="time"), (4, 3)) for _ in "ab"
    )
    assert first == second
    assert first.startswith("<svg")
    assert re.search(r"<text[^>]*>time</text>", first)


@pytest.mark.parametrize(
    ("values", "scale"), [([1.0, 0.5], "linear"), ([1.0, 0.001], "log"), ([1.0, -1.0], "linear")]
)
def test_a_wide_range_gets_a_logarithmic_scale(values, scale):
    scales = []

    def draw(axes):
        curves({"a": [([0, 1], values)]}, across="step")(axes)
        scales.append(axes.get_yscale())

    svg(draw, (4, 3))
    assert scales == [scale]
