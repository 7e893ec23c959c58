"""The report card: its page is right about what it is given, and a stopped run goes on."""

import importlib
import re
import sys
from pathlib import Path

import pytest

from aptt.audit import PROMISES, Record

sys.path.insert(0, str(Path(__file__).parents[2]))  # the builder is no part of the package

card = importlib.import_module("docs.builder.card")
page = importlib.import_module("docs.builder.card_page").page
cell = importlib.import_module("docs.builder.card_page").cell
Peer = importlib.import_module("docs.builder.peers").Peer
PEERS = card.PEERS
FIRST, SECOND, THIRD = list(PROMISES)[:3]


def record(loss, promise, state, why="", small=""):
    return Record(loss, promise, state, why, smallest=small)


def peer(library, name, **choices):
    return Peer(library=library, name=name, load=lambda: None, choices=choices)


@pytest.fixture(scope="module")
def made():
    """Two losses of ours that keep all, and three of others."""
    ours = [record("dice_loss", FIRST, "kept"), record("dice_loss", SECOND, "kept")]
    ours += [record("giou_loss", FIRST, "kept"), record("giou_loss", SECOND, "does not apply")]
    small = "x=[[0.0]], y=[1]: got nan"
    theirs = [
        (peer("one", "a"), [record("a", FIRST, "kept"), record("a", SECOND, "kept")]),
        (
            peer("one", "b", **{SECOND: "meant so"}),
            [
                record("b", FIRST, "broken", "got nan | wanted 0", small),
                record("b", SECOND, "broken", "it is float16"),
            ],
        ),
        (
            peer("two", "c", **{FIRST: "meant so"}),
            [record("c", FIRST, "broken", "no"), record("c", SECOND, "does not apply")],
        ),
    ]
    return page(ours, theirs, ["three `d`: ModuleNotFoundError: no three"], {"one": "1.2"})


def row(text, start):
    (found,) = re.findall(rf"^\| {re.escape(start)} \|(.*)\|$", text, re.MULTILINE)
    return [part.strip() for part in found.split("|")]


def test_a_library_is_counted_over_all_its_losses(made):
    assert row(made, "**aptt**") == ["2", "3", "0", "0", "1"]
    assert row(made, "one") == ["2", "2", "1", "1", "0"]
    assert row(made, "two") == ["1", "0", "0", "1", "1"]


def test_a_promise_says_how_many_of_a_library_keep_it(made):
    matrix = made.partition("Promise by promise")[2].partition("Loss by loss")[0]
    assert row(matrix, f"`{FIRST}`") == ["2/2", "**1/2**", "*0/1*"]
    assert row(matrix, f"`{SECOND}`") == ["1/1", "*1/2*", ""]
    assert f"Kept by all that were asked: `{THIRD}`, " in matrix


def test_what_is_broken_comes_with_its_input_and_a_choice_with_its_reason(made):
    b = made.partition("### one `b`")[2].partition("###")[0]
    assert row(b, f"`{FIRST}`") == ["got nan \\", "wanted 0", "`x=[[0.0]], y=[1]`"]
    assert f"By choice not kept: `{SECOND}`: meant so." in b
    assert "Every promise that could be asked is kept.\n" in made.partition("### one `a`")[2]
    assert "kept, but for choices." in made.partition("### two `c`")[2]
    assert "- three `d`: ModuleNotFoundError: no three" in made


def test_our_own_are_listed_by_family_and_what_they_break_is_told(made):
    assert "| Region losses for segmentation | 1 | `dice_loss` 2 |" in made
    assert "| Box regression losses | 1 | `giou_loss` 1 |" in made
    assert "Every promise that applies is kept" in made
    text = page([record("dice_loss", FIRST, "broken", "got 3")], [], [], {})
    assert f"- `dice_loss`, {FIRST}: got 3" in text
    assert "is kept," not in text.partition("## Ours")[2]


def test_a_cell_breaks_no_table():
    assert cell("a\n | b < c") == "a \\| b &lt; c"
    assert len(cell("x" * 999)) == 260


def test_a_stopped_run_asks_only_what_it_has_not(tmp_path, monkeypatch):
    asked = []

    def answer(rows, jobs):
        asked.append(sorted(str(what) for _, what in rows.values()))
        for file, (_, what) in rows.items():
            file.write_text(f'[{{"loss": "{what}", "promise": "{FIRST}", "state": "kept"}}]')

    monkeypatch.setattr(card, "_ask", answer)
    monkeypatch.setattr(card, "SPECS", {"dice_loss": None, "giou_loss": None})
    monkeypatch.setattr(card, "PEERS", PEERS[:1])
    for _ in range(2):
        card.write(tmp_path / "audit.md", kept=tmp_path / "kept")
    assert asked == [["0", "dice_loss", "giou_loss"], []]
    assert "| **aptt** | 2 | 2 |" in (tmp_path / "audit.md").read_text(encoding="utf-8")


def test_a_peer_that_does_not_import_is_left_out_by_name(tmp_path, monkeypatch):
    def load():
        raise RuntimeError("operator x::y does not exist\nand more")

    absent = Peer(library="absent", name="loss", load=load)
    monkeypatch.setattr(card, "PEERS", (absent,))
    (said,) = card.theirs(0)
    monkeypatch.setattr(card, "SPECS", {})
    monkeypatch.setattr(card, "_ask", lambda rows, jobs: None)
    monkeypatch.setattr(card, "_read", lambda file: [said])
    card.write(tmp_path / "audit.md", kept=tmp_path)
    text = (tmp_path / "audit.md").read_text(encoding="utf-8")
    assert "- absent `loss`: RuntimeError: operator x::y does not exist\n" in text


def test_no_two_peers_have_one_title():
    titles = [(peer.library, peer.title) for peer in PEERS]
    assert len(titles) == len(set(titles))
