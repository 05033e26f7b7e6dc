"""`python -m toy_stage --config RUN/config.yaml`."""

from __future__ import annotations

import argparse
import os
import signal
import sys
import time
from pathlib import Path

from toy_config import ToyJob

from dreamline.config import load
from dreamline.result import write_progress, write_result

OUTPUTS = ("t2i", "edit", "frozen", "checkpoint", "reward")


def main() -> None:
    """Note the start, show progress, do what is asked."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--config", required=True)
    job = load(ToyJob, parser.parse_args().config)
    started, run_dir, action = time.time(), Path(job.run_dir), job.stage.action
    with (run_dir / "starts").open("a") as file:
        file.write("x")
    first = (run_dir / "starts").read_text() == "x"
    for step in range(3):
        write_progress(run_dir, step, 3, "steps", "toy", {"loss/toy": 1 / (1 + step)})
        time.sleep(0.1)
    while action == "wait" and not (run_dir / "go").exists():
        time.sleep(0.05)
    if action == "fail_once" and first:
        sys.exit("stage.lr must be positive")
    if action == "die_once" and first:
        os.kill(os.getpid(), signal.SIGKILL)
    for name in OUTPUTS:
        (run_dir / name).mkdir(exist_ok=True)
    metrics = {"scenes/generation": 0.5} if job.stage.name.startswith("eval-") else {"train/loss/toy": 0.25}
    if action == "diverge":
        metrics["train/loss/toy"] = 1e999
    write_result(job, job.stage.name, started, outputs={name: name for name in OUTPUTS}, metrics=metrics)
    if action == "linger":
        sys.exit("could not say goodbye")


if __name__ == "__main__":
    main()
