"""What other processes do to it: ranks die, stop and dawdle; disks are full; Ctrl-C comes."""

import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

Watch = Callable[[float], None]
_RANK = Path(__file__).with_name("rank.py")


def ranks(count: int, watch: Watch) -> str:
    """Two ranks share their means while one of them is slow, stopped, stopped for good, killed."""
    whole = _world("")
    assert _world("slow") == whole, "a slow rank changes the means"
    watch(0.25)
    assert _world("stopped") == whole, "a rank that was stopped for a while changes the means"
    watch(0.5)
    for how in ("frozen", "killed"):
        said = _world(how)
        assert said[0].startswith("error:"), f"one rank was {how}, and the other said {said[0]}"
        watch(0.75)
    return (
        f"{count} means of two ranks, one of them slow or stopped for 2 s: the same numbers; "
        "frozen or killed: the other has an error after the group's timeout, here 5 s"
    )


def _world(how: str) -> list[str]:
    """What each of two ranks printed, one of which was treated so."""
    with tempfile.TemporaryDirectory() as folder:
        command = [sys.executable, str(_RANK), str(Path(folder, "store")), how]
        pipe = {"stdout": subprocess.PIPE, "stderr": subprocess.DEVNULL, "text": True}
        both = [subprocess.Popen([*command, str(rank)], **pipe) for rank in (0, 1)]  # type: ignore[call-overload]
        line = both[1].stdout.readline()  # half of its steps are done
        assert line == "half\n", f"rank 1 said {line!r}"
        if how in ("stopped", "frozen"):
            both[1].send_signal(signal.SIGSTOP)
            time.sleep(2)
        if how == "stopped":
            both[1].send_signal(signal.SIGCONT)
        if how == "killed":
            both[1].kill()
        first = both[0].communicate(timeout=120)[0].splitlines()[-1]
        if how in ("frozen", "killed"):
            both[1].kill()
            both[1].communicate()
            return [first]
        return [first, both[1].communicate(timeout=120)[0].splitlines()[-1]]


def disk(count: int, watch: Watch) -> str:
    """No file can grow beyond so many bytes: numbers are still printed, and no half file stays."""
    with tempfile.TemporaryDirectory() as folder:
        argv = ["train", "classification", "--steps", "2", "--loss", "focal", "--out", folder]
        done = _aptt(argv, limit=count)
        watch(0.5)
        left = [path.name for path in Path(folder).iterdir()]
        assert done.returncode == 2, done
        assert "cannot be written: File too large" in done.stderr.splitlines()[-1], done.stderr
        assert "balanced accuracy" in done.stdout, done.stdout
        assert left in ([], ["result.json"]), left
        code = (
            "import torch; from aptt.compose import CombinedLoss; from aptt.loss import mse_loss\n"
            f"term = CombinedLoss({{'term': mse_loss}}, on_nonfinite='dump', dump_to={folder!r})\n"
            "x = torch.full((9999,), torch.nan, requires_grad=True)\n"
            "term(x, torch.zeros(9999))"
        )
        done = _run([sys.executable, "-c", code], limit=count)
        assert "NonFiniteError: term 'term' is nan" in done.stderr, done.stderr
        assert "its inputs cannot be written" in done.stderr, done.stderr
        assert [path.name for path in Path(folder).iterdir()] == left
    watch(1.0)
    return (
        f"files of at most {count:,} bytes: train prints its table, names the file and ends with "
        "2; dump names the term, its argument and the file; no part of a file stays"
    )


_COMMANDS = (
    ["list"],
    ["show", "giou"],
    ["plot", "focal", "--out", "OUT/focal.svg"],
    ["audit", "rmse_loss"],
    ["train", "classification", "--steps", "200", "--out", "OUT/run"],
    ["compare", "classification", "--seeds", "2", "--steps", "100", "--out", "OUT/both"],
)


def interrupts(count: int, watch: Watch) -> str:
    """Ctrl-C at a random moment of every command ends it in a line, with 130 for a shell."""
    dice, done, stopped = random.Random(0), 0, 0
    for k in range(count):
        argv = _COMMANDS[k % len(_COMMANDS)]
        with tempfile.TemporaryDirectory() as folder:
            given = [part.replace("OUT", folder) for part in argv]
            ended = _aptt(given, after=dice.uniform(0.5, 15.0))  # Python itself starts before
        said = f"{argv}: {ended.returncode}\n{ended.stderr[-2000:]}"
        # a signal where CPython runs a text, as namedtuple does, ends it by that signal at the end
        assert ended.returncode in (0, 130, -signal.SIGINT), said
        assert "Traceback" not in ended.stderr, said
        if ended.returncode == 0 or not ended.stderr:  # before Python began, or at its end
            done += 1
        else:
            stopped += 1
            assert ended.stderr.splitlines()[-1].startswith("aptt: stopped"), said
        watch((k + 1) / count)
    return f"Ctrl-C in {count} commands: {stopped} ended with 130 and a line, {done} were done"


def _aptt(argv: list[str], **how: float | None) -> "subprocess.CompletedProcess[str]":
    return _run([sys.executable, "-m", "aptt", *argv], **how)  # type: ignore[arg-type]


def _run(
    command: list[str], *, limit: int | None = None, after: float | None = None
) -> "subprocess.CompletedProcess[str]":
    def limited() -> None:
        if limit is not None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))

    environment = os.environ | {"PYTHONDONTWRITEBYTECODE": "1"}
    with subprocess.Popen(
        command,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=limited,
        env=environment,
    ) as child:
        try:
            out, err = child.communicate(timeout=600 if after is None else after)
        except subprocess.TimeoutExpired:
            child.send_signal(signal.SIGINT)
            out, err = child.communicate(timeout=120)
        return subprocess.CompletedProcess(command, child.returncode, out, err)
