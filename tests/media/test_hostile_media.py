"""Hundreds of damaged, hostile and odd files: each is decoded or refused with a reason, in bounded time and memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

from dreamline.media.errors import REASONS

ADDRESS_SPACE = 4 * 2**30
EXPECTED = {
    "png-bomb": "too_many_pixels",
    "png-announced-huge": "too_many_pixels",
    "png-bomb-within-pixels": "decoded",
    "png-data-too-short": "truncated",
    "png-text-bomb": "metadata",
    "png-text-bombs": "metadata",
    "png-itxt-bomb": "metadata",
    "png-profile-bomb": "metadata",
    "png-many-chunks": "metadata",
    "png-zeros": "corrupt",
    "cmyk-hole": "truncated",
    "jpeg-many-profiles": "decoded",
    "gif-first-frame-outside": "too_many_pixels",
    "png-html-inside": "decoded",
    "jpeg-announced-65500x65500": "too_many_pixels",
    "jpeg-announced-8000x8000": "truncated",
    "jpeg-scans": "too_many_scans",
    "jpeg-many-segments": "metadata",
    "jpeg-fill-bytes": "metadata",
    "jpeg-zip-behind": "decoded",
    "webp-canvas": "too_many_pixels",
    "webp-frames": "decoded",
    "webp-announced-longer": "truncated",
    "gif-announced-huge": "too_many_pixels",
    "gif-many-frames": "decoded",
    "tiff-strips": "metadata",
    "bmp-announced-8000x8000": "truncated",
    "empty": "empty",
    **dict.fromkeys(("html", "svg", "postscript", "pdf", "zip", "heic", "mp4", "text", "zeros", "noise"), "format"),
}


def test_hostile_files_are_decoded_or_refused() -> None:
    program = Path(__file__).with_name("hostile_files.py")
    done = subprocess.run(
        [sys.executable, program, str(ADDRESS_SPACE)], capture_output=True, text=True, timeout=280, check=False
    )
    assert done.returncode == 0, done.stderr[-2000:]
    *files, last = map(json.loads, done.stdout.splitlines())
    outcomes = {line["name"]: line["outcome"] for line in files}
    assert len(outcomes) == len(files) >= 450
    assert set(outcomes.values()) <= {"decoded", *REASONS}
    assert all(line["detail"] for line in files if line["outcome"] != "decoded")
    assert {name: outcomes[name] for name in EXPECTED} == EXPECTED
    for line in files:
        if "-cut-" in line["name"]:
            assert line["outcome"] in ("truncated", "unreadable", "corrupt", "format"), line
        assert line["seconds"] < 5, line
    assert last["peak_bytes"] < 2**30, last
    print(f"{len(files)} files, {sum(line['seconds'] for line in files):.1f} CPU-seconds, {last}")
