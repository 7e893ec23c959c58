"""The example of several processes, as its first lines say to run it."""

import re
import subprocess
import sys
from pathlib import Path

EXAMPLE = Path(__file__).parents[2] / "examples" / "train_distributed.py"


def test_two_processes_train_what_one_trains():
    done = subprocess.run(
        [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2", str(EXAMPLE)],
        capture_output=True,
        text=True,
        timeout=600,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    steps = re.findall(r"loss ([\d.]+) on 2 processes, ([\d.]+) on one", done.stdout)
    assert len(steps) == 5
    assert all(abs(float(a) - float(b)) < 1e-5 for a, b in steps)
    (apart,) = re.findall(r"no weight differs by more than (\S+)", done.stdout)
    assert float(apart) < 1e-6
