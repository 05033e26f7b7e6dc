"""What a log shows of a run."""

from __future__ import annotations

import io
import time

import pytest

from dreamline.result import StageResult
from flows import display
from flows.display import Display, duration
from flows.launch import Progress


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.34, "0.3 s"), (42.2, "42 s"), (59.7, "1 min 00 s"), (185, "3 min 05 s"), (7620, "2 h 07 min")],
)
def test_durations(seconds: float, text: str) -> None:
    assert duration(seconds) == text


def test_a_log_gets_plain_lines_with_the_time_to_go(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(display, "PLAIN_EVERY_S", 0.0)
    stream = io.StringIO()
    with Display(2, stream) as shown:
        show = shown.watch("t2i")
        now = time.time()
        show(Progress(300, 400, "steps", "train", {}, now - 50))  # of an attempt before this one
        show(Progress(100, 400, "steps", "train", {"loss/velocity": 0.5}, now + 10))
        show(Progress(200, 400, "steps", "train", {"loss/velocity": 0.25}, now + 20))
        shown.end("t2i", StageResult(stage="t2i", digest="", run_dir="", metrics={"train/loss/velocity": 0.125}))
        show = shown.watch("edit")
        shown.end("edit", None)
    lines = stream.getvalue().splitlines()
    assert lines[0] == "[1/2] t2i: started"
    assert lines[1].startswith("[1/2] t2i: starting")
    assert "train, 200/400 steps, 40 s to go, loss/velocity 0.25" in lines[3] or "39 s to go" in lines[3]
    assert lines[4].startswith("[1/2] t2i: done in")
    assert lines[4].endswith("train/loss/velocity 0.125")
    assert lines[6].startswith("[2/2] edit: no result after")
