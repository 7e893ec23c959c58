import errno
import json

import pytest

from aptt.cli import main
from aptt.cli.mistakes import Mistake, writing
from aptt.recipes.classification import Classification


def test_train_writes_a_report(capsys, tmp_path):
    assert main(["train", "classification", "--steps", "2", "--out", str(tmp_path)]) == 0
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"Report: {tmp_path / 'report.html'}"
    assert "classification, cross-entropy, seed 0" in err
    html = (tmp_path / "report.html").read_text(encoding="utf-8")
    for part in ("Digits with a long tail", "--steps 2", "balanced accuracy", "logsumexp", "<svg"):
        assert part in html


def test_json_is_the_whole_of_stdout(capsys, tmp_path):
    argv = ["train", "classification", "--steps", "2", "--seed", "7", "--json"]
    assert main([*argv, "--out", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    document = json.loads(out)
    (study,) = document["studies"]
    assert document["stopped"] is False
    assert [(run["seed"], run["finished"]) for run in study["runs"]] == [(7, True)] * len(
        Classification.losses
    )
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8")) == document


def test_ctrl_c_still_writes_the_report(capsys, monkeypatch, tmp_path):
    steps = iter(range(5))
    plain = Classification.step

    def step(self, model, loss, batch):
        if next(steps) == 4:
            raise KeyboardInterrupt
        return plain(self, model, loss, batch)

    monkeypatch.setattr(Classification, "step", step)
    assert main(["train", "--steps", "3", "--out", str(tmp_path)]) == 130
    assert "stopped; reporting what was done" in capsys.readouterr().err
    assert "focal, seed 0: stopped at step 1 of 3." in (tmp_path / "report.html").read_text(
        encoding="utf-8"
    )
    document = json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))
    assert document["stopped"] is True
    assert [run["finished"] for run in document["studies"][0]["runs"]] == [True, False]


def test_ctrl_c_before_anything_was_done_says_so(capsys, monkeypatch, tmp_path):
    def step(self, model, loss, batch):
        raise KeyboardInterrupt

    monkeypatch.setattr(Classification, "step", step)
    assert main(["train", "--out", str(tmp_path)]) == 130
    assert capsys.readouterr().err.splitlines()[-1] == "aptt: stopped"
    assert not (tmp_path / "report.html").exists()


def test_compare_reports_the_spread(capsys, tmp_path):
    argv = ["compare", "classification", "--loss", "focal", "--loss", "cross-entropy"]
    assert main([*argv, "--seeds", "2", "--steps", "2", "--json", "--out", str(tmp_path)]) == 0
    (study,) = json.loads(capsys.readouterr().out)["studies"]
    assert [(run["loss"], run["seed"]) for run in study["runs"]] == [
        ("focal", 0),
        ("cross-entropy", 0),
        ("focal", 1),
        ("cross-entropy", 1),
    ]
    (verdict,) = study["verdict"]
    assert verdict.startswith("cross-entropy against focal, balanced accuracy: ")


@pytest.mark.parametrize(
    ("argv", "answer"),
    [
        (["train", "clasification"], "unknown recipe 'clasification'; did you mean 'classif"),
        (["train", "poetry"], "there are: classification, segmentation, "),
        (["train", "classification", "--loss", "focl"], "unknown loss of classification 'focl'"),
        (["train", "--steps", "0"], "--steps: got 0, wanted at least 1"),
        (["train", "--out", __file__], "--out: "),
        (["compare"], "RECIPE"),
        (["compare", "segmentatoin"], "did you mean 'segmentation'?"),
        (["compare", "classification", "--seeds", "1"], "--seeds: got 1, wanted at least 2"),
        (["compare", "classification", "--loss", "focal"], "--loss: got one"),
    ],
)
def test_a_mistake_is_answered_in_one_line_before_any_training(capsys, argv, answer):
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert answer in err
    assert err.count("\n") == 1


def test_what_was_done_is_kept_where_the_report_cannot_be_written(capsys, tmp_path):
    (tmp_path / "report.html").mkdir()
    argv = ["train", "classification", "--steps", "2", "--loss", "focal", "--out", str(tmp_path)]
    assert main(argv) == 2
    out, err = capsys.readouterr()
    assert "balanced accuracy" in out
    assert "Report:" not in out
    said = f"aptt: {tmp_path / 'report.html'} cannot be written: Is a directory"
    assert err.splitlines()[-1] == said
    assert json.loads((tmp_path / "result.json").read_text(encoding="utf-8"))["studies"]


def test_a_full_disk_leaves_no_part_of_a_file(tmp_path):
    path = tmp_path / "some"
    path.write_text("a part", encoding="utf-8")
    with pytest.raises(Mistake, match=r"some cannot be written: No space left"), writing(path):
        raise OSError(errno.ENOSPC, "No space left on device")
    assert not path.exists()
