"""Two processes with half of the batch each are one process with the whole."""

import sys
from pathlib import Path

import pytest
import torch

from aptt.audit.ranks import start

sys.path.append(str(Path(__file__).parent))  # the processes import the worker by its name

import ranks_worker

pytestmark = pytest.mark.skipif(
    not (torch.distributed.is_available() and torch.distributed.is_gloo_available()),
    reason="needs gloo",
)


@pytest.fixture(scope="module")
def ranks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("ranks")
    start(ranks_worker.work, (str(folder),), 2)
    return [torch.load(folder / f"rank{rank}.pt", weights_only=True) for rank in (0, 1)]


@pytest.fixture(scope="module")
def four(tmp_path_factory):
    folder = tmp_path_factory.mktemp("four")
    start(ranks_worker.of_four, (str(folder),), 4)
    return [torch.load(folder / f"four{rank}.pt", weights_only=True) for rank in range(4)]


@pytest.mark.parametrize("balance", list(ranks_worker.BALANCERS))
def test_the_gradient_is_that_of_one_process(ranks, balance):
    alone = ranks_worker.train(balance, 0, 1)
    for rank in ranks:
        torch.testing.assert_close(rank[balance]["grad"], alone["grad"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rank[balance]["model"], alone["model"], rtol=1e-5, atol=1e-6)
        torch.testing.assert_close(rank[balance]["balance"], alone["balance"], rtol=1e-5, atol=1e-6)
    assert alone["grad"][0].abs().max() > 0


@pytest.mark.parametrize("balance", ["uncertainty", "gradshare", "gradnorm", "dwa"])
def test_balancers_are_identical_bit_by_bit(ranks, balance):
    for case in (balance, f"{balance} absent"):
        one, two = (rank[case]["balance"] for rank in ranks)
        assert one.keys() == two.keys() != set()
        for name in one:
            assert torch.equal(one[name], two[name])


def test_a_log_can_be_of_all_ranks(ranks):
    alone = ranks_worker.train("none", 0, 1)["pooled"]
    for rank in ranks:
        assert rank["none"]["pooled"] == pytest.approx(alone, rel=1e-5)


def test_a_nan_on_one_rank_stays_in_its_account_when_all_is_wrapped(ranks):
    """Data parallel copies rank 0's buffers to all; the account is none."""
    zero, one = (rank["wrapped"] for rank in ranks)
    assert torch.equal(zero["s"], one["s"])
    assert zero["s"].abs().max() > 0
    assert zero["nonfinite"].tolist() == [0, 0]
    assert one["nonfinite"].tolist() == [1, 1]
    assert one["first_bad"].tolist() == [3, 3]


def test_a_step_that_is_not_finite_on_one_rank_is_left_out_on_all(ranks):
    zero, one = (rank["skipping"] for rank in ranks)
    assert torch.equal(zero["weights"], one["weights"])
    assert zero["skipped"] == one["skipped"] == [False, True, False, False]
    assert zero["log"] == one["log"] == 1
    first, second, third, _ = zero["weights"]
    assert torch.equal(first, second)
    assert (third != second).all()
    assert zero["weights"].isfinite().all()


@pytest.mark.parametrize("balance", list(ranks_worker.BALANCERS))
@pytest.mark.parametrize("cut", [cut for cut in ranks_worker.CUTS if cut != (1, 1)])
def test_what_is_learnt_does_not_depend_on_the_split(ranks, four, balance, cut):
    whole = ranks_worker.accumulated(balance, 0, (1, 1))
    if cut[0] == 1:
        found = [ranks_worker.accumulated(balance, 0, cut)]
    elif cut[0] == 4:
        found = [rank[balance, cut] for rank in four]
    else:
        found = [rank["accumulated"][balance, cut] for rank in ranks]
    for one in found:
        torch.testing.assert_close(one, whole, rtol=1e-9, atol=1e-12)
    changed = [p.abs().max() for p in whole["balance"].values()]
    assert not changed or max(changed) > 0
