"""The examples of combining losses, each a real run of the library it is about."""

import importlib.util
import sys
import warnings
from pathlib import Path

import pytest
import torch

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name, *needs):
    """The example as a module; what others warn of while they are imported is theirs to mend."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        for package in needs:
            pytest.importorskip(package)
        spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return module


def same(model, other):
    torch.testing.assert_close(model.state_dict(), other.state_dict(), rtol=0, atol=0)


def test_plain():
    plain = example("compose_plain")
    through, first, second = plain.Run(), plain.Run(), plain.Run()
    logs = through.train(range(6), steps=10)
    head = first.train(range(3), steps=10)
    second.load(first.save())
    tail = second.train(range(3, 6), steps=10)
    same(through.model, second.model)
    for log, again in zip(logs, head + tail, strict=True):
        assert again == pytest.approx(log, rel=1e-12)
    assert [log["train/box/weight"] for log in logs[:2]] == pytest.approx([0.5, 0.95])
    assert logs[-1]["train/box"] < 0.8 * logs[0]["train/box"]
    assert logs[-1]["train/cls"] < 0.8 * logs[0]["train/cls"]


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and the like
def test_lightning(tmp_path):
    module = example("compose_lightning", "lightning")
    through = module.fit(tmp_path, 4)
    module.fit(tmp_path, 2)
    resumed = module.fit(tmp_path, 4, resume=tmp_path / "epoch2.ckpt")
    same(through.model, resumed.model)
    assert torch.equal(through.criterion.balance.s, resumed.criterion.balance.s)
    assert through.criterion.balance.s.abs().min() > 0
    assert resumed.logs[-1] == pytest.approx(through.logs[-1], rel=1e-12)
    assert through.logs[-1]["train/cls"] < 0.8 * through.logs[0]["train/cls"]


@pytest.mark.filterwarnings("ignore")
def test_trainer(tmp_path):
    module = example("compose_trainer", "transformers", "accelerate")
    through, account = module.make(tmp_path / "through")
    through.train()
    module.make(tmp_path / "twice")[0].train()
    resumed, again = module.make(tmp_path / "twice")
    resumed.train(resume_from_checkpoint=str(tmp_path / "twice" / "checkpoint-4"))
    same(through.model, resumed.model)
    assert again.mix.report()["ce"]["calls"] == account.mix.report()["ce"]["calls"] == 16
    assert [log["terms/z/weight"] for log in account.logs] == pytest.approx(
        [0.01 * min(step / 6, 1) for step in range(8)]
    )
    for log in account.logs:
        assert log["loss"] == pytest.approx(log["terms/total"], rel=1e-3)
    assert account.logs[-1]["terms/ce"] < 0.8 * account.logs[0]["terms/ce"]


@pytest.mark.filterwarnings("ignore")
def test_trainer_gradients_do_not_depend_on_accumulation(tmp_path):
    """Rows are of uneven length: a mean of means would differ."""
    module = example("compose_trainer", "transformers", "accelerate")
    norms = []
    for batch, accumulate in ((8, 1), (2, 4)):
        trainer, account = module.make(tmp_path / str(batch), batch, accumulate)
        trainer.train()
        norms.append([log["grad_norm"] for log in account.logs])
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_trainer_gradients_do_not_depend_on_devices(tmp_path):
    """One process that drives two GPUs, as the Trainer believes here; counts come as (2, 1)."""
    module = example("compose_trainer", "transformers", "accelerate")
    norms, shapes = [], []
    for batch, accumulate, devices in ((8, 1, 1), (4, 2, 2)):
        trainer, account = module.make(tmp_path / str(devices), batch, accumulate)
        trainer.args._n_gpu = devices
        objective = trainer.compute_loss_func

        def loss(outputs, labels, num_items_in_batch=None, objective=objective):
            shapes.append(tuple(num_items_in_batch.shape))
            return objective(outputs, labels, num_items_in_batch)

        trainer.compute_loss_func = loss
        trainer.train()
        norms.append([log["grad_norm"] for log in account.logs])
    assert set(shapes) == {(), (2, 1)}
    assert norms[1] == pytest.approx(norms[0], rel=1e-3)


@pytest.mark.filterwarnings("ignore")
def test_torchjd():
    module = example("compose_torchjd", "torchjd", "quadprog", "qpsolvers")
    start, end = module.main(steps=1), module.main(steps=60)
    for name in ("cls", "far"):  # neither is trained at the other's cost
        assert end[name] < 0.9 * start[name]


def test_accumulation_under_accelerate_is_one_large_batch_to_the_end_of_an_epoch():
    module = example("accumulate_accelerate", "accelerate")
    assert module.main() < 1e-12


@pytest.mark.filterwarnings("ignore")  # Lightning's advice about workers and the like
def test_accumulation_under_lightning_is_one_large_batch_to_the_end_of_an_epoch(tmp_path):
    module = example("accumulate_lightning", "lightning")
    assert module.main(tmp_path) < 1e-12
