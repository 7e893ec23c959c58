import json

import pytest
import torch

import aptt.loss
from aptt.cli import main
from aptt.cli.catalogue import answering, entries, find
from aptt.cli.docstring import read
from aptt.cli.mistakes import Mistake

LOSSES = [entry for entry in entries() if entry.function and entry.module_form]


def test_every_public_name_is_listed_once():
    names = [name for e in entries() for name in (e.function, e.module_form) if name]
    assert sorted(names) == sorted(aptt.loss.__all__)


def test_every_module_form_names_its_function():
    alone = [entry.module_form for entry in entries() if not entry.function]
    assert [name for name in alone if issubclass(getattr(aptt.loss, name), torch.nn.Module)] == []


@pytest.mark.parametrize("entry", LOSSES, ids=lambda entry: entry.name)
def test_every_loss_says_what_it_is(entry):
    assert entry.formula
    assert entry.doc.title.endswith(".")
    assert {"Axes", "From"} <= set(entry.family.sections)
    assert {"Args", "Returns", "Raises", "Use when", "Example"} <= set(entry.doc.sections)


@pytest.mark.parametrize(
    "name", ["cross_entropy", "CrossEntropyLoss", "cross-entropy", "crossentropy", "Cross Entropy"]
)
def test_a_loss_is_found_by_any_of_its_names(name):
    assert find(name).names == "cross_entropy · CrossEntropyLoss"


@pytest.mark.parametrize(
    ("word", "names"),
    [
        ("bce", {"binary_cross_entropy"}),
        ("jaccard", {"mask_iou_loss"}),
        ("kd", {"distillation_loss"}),
        ("PIT", {"permutation_invariant_loss"}),
        ("nll", {"cross_entropy"}),
        ("mse", {"mse_loss", "heatmap_loss"}),
        ("mae", {"l1_loss"}),
        ("gspo", {"policy_loss"}),
        ("DFL", {"distribution_focal_loss"}),
        ("mixit", {"mixture_invariant_loss"}),
        ("sdr", {"si_sdr_loss", "sd_sdr_loss", "snr_loss"}),
        ("iou", {"mask_iou_loss", "box_iou_loss"}),
    ],
)
def test_a_loss_is_found_by_the_word_that_people_use(word, names, capsys):
    assert names <= {entry.name for entry in answering(word)}
    assert main(["show", word]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in names)


def test_where_several_answer_and_none_has_the_name_a_plot_asks_which(capsys):
    assert main(["plot", "sdr"]) == 2
    said = capsys.readouterr().err
    assert "several losses answer to 'sdr': " in said
    assert "si_sdr_loss" in said


def test_an_unknown_loss_is_told_what_was_meant():
    with pytest.raises(Mistake, match="unknown loss 'focl'; did you mean 'focal_loss'"):
        find("focl")
    with pytest.raises(Mistake, match="`aptt list` shows them all"):
        find("zzzz")


def test_list_shows_every_name(capsys):
    assert main(["list"]) == 0
    out = capsys.readouterr().out
    assert all(name in out for name in aptt.loss.__all__)


def test_list_as_json(capsys):
    assert main(["list", "--json"]) == 0
    listed = json.loads(capsys.readouterr().out)
    assert [entry["title"] for entry in listed] == [entry.doc.title for entry in entries()]


def test_show_says_formula_paper_and_call(capsys):
    assert main(["show", "cross-entropy"]) == 0
    out = capsys.readouterr().out
    for part in (
        "cross_entropy · CrossEntropyLoss",
        "logsumexp",
        "arXiv:",
        "cross_entropy(logits",
        "loss_fn(",
    ):
        assert part in out


@pytest.mark.parametrize("entry", entries(), ids=lambda entry: entry.name)
def test_no_signature_shows_an_address(entry):
    assert " at 0x" not in " ".join(entry.signatures)


def test_a_function_as_default_is_shown_by_its_name(capsys):
    assert main(["show", "detection_loss"]) == 0
    out = capsys.readouterr().out
    assert "class_loss=binary_cross_entropy" in out
    assert "at 0x" not in out


def test_symbols_that_only_the_file_defines_are_shown_beside_the_formula(capsys):
    assert main(["show", "giou"]) == 0
    assert "where  I, U, C: areas of intersection, union, enclosing box" in capsys.readouterr().out
    where = find("ciou").where
    for line in ("c: diagonal of C", "a = v / (1 - I / U + v)", "v = (2 / pi"):
        assert line in where
    assert find("cross_entropy").where.startswith("z = logits, or softcap")
    assert find("focal").where == ""  # says itself what p is


def test_a_loss_of_many_names_its_own_papers_alone():
    source = find("giou").source
    assert "Rezatofighi" in source
    assert "alpha-IoU" in source  # its option `power`
    assert not {"Zheng", "Zhang", "Gevorgyan", "Llerena"} & set(source.replace(",", "").split())
    assert "alpha-IoU" not in find("probiou").source
    assert find("focal").source == find("focal").family.sections["From"]
    assert find("mask_iou").source == find("mask_iou").family.sections["From"]  # cannot be told


def test_show_as_json(capsys):
    assert main(["show", "CrossEntropyLoss", "--json"]) == 0
    shown = json.loads(capsys.readouterr().out)
    assert shown["function"] == "cross_entropy"
    assert shown["file"] == "aptt.loss.classification.categorical"
    assert "logsumexp" in shown["formula"]
    assert shown["sections"]["axes"]


def test_show_of_an_unknown_loss_is_refused(capsys):
    assert main(["show", "focl"]) == 2
    assert "did you mean 'focal_loss'?" in capsys.readouterr().err


def test_a_docstring_is_taken_apart():
    doc = read(
        """Title on
        two lines.

            a = b
              + c

        Prose about :func:`~aptt.loss.x` and ``y``.

            d = e

        Use when: it suits,
        always.

        Args:
            a: one,
                two.

            b: three.

        An afterthought.
        """
    )
    assert doc.title == "Title on two lines."
    assert doc.formula == "a = b\n  + c\n\nd = e"
    assert doc.prose == "Prose about aptt.loss.x and y.\n\nAn afterthought."
    assert doc.sections == {
        "Use when": "it suits,\nalways.",
        "Args": "a: one,\n    two.\n\nb: three.",
    }


def test_no_docstring_is_empty():
    assert read(None).title == ""
