"""The ways in which people plug a loss in, each run; and a wrong use of each, with what is said."""

import importlib.util
import sys
from abc import ABC, abstractmethod
from pathlib import Path
from types import ModuleType, SimpleNamespace

import pytest
import torch

from aptt.loss import FocalLoss, TverskyLoss, cross_entropy

EXAMPLES = Path(__file__).parents[2] / "examples"


def example(name, *needs):
    for package in needs:
        pytest.importorskip(package)
    spec = importlib.util.spec_from_file_location(name, EXAMPLES / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where annotations are looked up
    spec.loader.exec_module(module)
    return module


@pytest.mark.filterwarnings("ignore")
def test_a_class_path_on_lightning_s_command_line(capsys):
    module = example("plug_lightning_cli", "lightning", "jsonargparse")
    path = ["--model.loss", "aptt.loss.FocalLoss", "--model.loss.gamma"]
    model = module.main([*path, "1.5"])
    assert repr(model.loss) == repr(FocalLoss(gamma=1.5))
    assert model.losses[-1] < 0.2 * model.losses[0]
    with pytest.raises(SystemExit):
        module.main([*path[:2], "--model.loss.gama", "1.5"])
    assert "Option 'gama' is not accepted" in capsys.readouterr().err


@pytest.mark.filterwarnings("ignore:term .* requires no gradient")
def test_a_target_of_hydra():
    module = example("plug_hydra", "hydra")
    assert module.main(module.MODULE) == module.main(module.FUNCTION)
    far = module.SUM["terms"]["far"]
    assert module.main(module.SUM) == module.main(module.MODULE) + 0.5 * module.main(far)
    with pytest.raises(Exception, match="gama: FocalLoss has no such option"):
        module.main({**far, "gama": 2.0})


def documented():
    """What ms-swift 4 has in ``swift.loss``, by its documentation, where it is not installed."""

    class BaseLoss(ABC):
        def __init__(self, args, trainer):
            self.args, self.trainer = args, trainer

        @abstractmethod
        def __call__(self, outputs, labels, *, num_items_in_batch=None, loss_scale=None, **kwargs):
            pass

    package, module = ModuleType("swift"), ModuleType("swift.loss")
    module.BaseLoss, module.loss_map = BaseLoss, {}
    return {"swift": package, "swift.loss": module}


def test_a_plugin_of_ms_swift(monkeypatch):
    if importlib.util.find_spec("swift") is None:
        for name, module in documented().items():
            monkeypatch.setitem(sys.modules, name, module)
    example("plug_swift")
    from swift.loss import loss_map

    loss_fn = loss_map["z_loss"](None, None)
    g = torch.Generator().manual_seed(0)
    logits = torch.randn(4, 9, 7, generator=g, dtype=torch.float64)
    labels = torch.randint(7, (4, 9), generator=g)
    labels[:, :3] = labels[0, 3:6] = -100
    items = (labels[:, 1:] != -100).sum()
    want = cross_entropy(logits[:, :-1], labels[:, 1:], class_dim=-1, z_loss=1e-4)
    found = [
        loss_fn(SimpleNamespace(logits=logits[i]), labels[i], num_items_in_batch=items)
        for i in (slice(0, 1), slice(1, 4))
    ]
    torch.testing.assert_close(sum(found), want)
    torch.testing.assert_close(loss_fn(SimpleNamespace(logits=logits), labels), want)
    scale = torch.full((4, 9), 2.0)
    twice = loss_fn(SimpleNamespace(logits=logits), labels, loss_scale=scale)
    torch.testing.assert_close(twice, 2 * want)
    with pytest.raises(ValueError, match="'cross_entropy' counts 21 in this micro-batch alone"):
        loss_fn(SimpleNamespace(logits=logits), labels, num_items_in_batch=4)  # of one device


def test_the_signature_of_torchtitan():
    module = example("plug_torchtitan")
    assert module.main() < 1e-15
    pred, labels = torch.zeros(6, 5), torch.arange(6) % 5
    with pytest.raises(ValueError, match="counts 6 in this micro-batch alone"):
        module.SmoothedLoss()(pred, labels, torch.tensor(3))
    loss, metrics = module.SmoothedLoss(z_loss=0.0)(pred, labels)
    torch.testing.assert_close(loss, 6 * torch.tensor(5.0).log())
    assert metrics == {}


@pytest.mark.filterwarnings("ignore:term .* requires no gradient")
def test_a_map_of_losses():
    module = example("plug_map")
    loss, _ = module.main()
    made = loss.terms["region"]
    assert repr(made) == repr(TverskyLoss(alpha=0.3, beta=0.7, absent="zero"))
    with pytest.raises(ValueError, match="loss 'recal'; did you mean 'recall'"):
        module.main({"terms": {"region": {"loss": "recal"}}})
