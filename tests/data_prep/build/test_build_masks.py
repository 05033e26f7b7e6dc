"""Masks that come with edits, white areas or holes, end in the sample."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from numpy.typing import NDArray

from data_prep.build.config import BuildConfig
from data_prep.build.run import Outcome, run_build
from data_prep.edits.foreground import decode_mask

Make = Callable[..., BuildConfig]
PLACE = (slice(20, 50), slice(40, 100))  # of the edit, in 96 x 128 px


def png(pixels: NDArray[Any]) -> dict[str, Any]:
    return {"bytes": cv2.imencode(".png", pixels)[1].tobytes(), "path": "a.png"}


def mask_of(outcome: Outcome, member: str) -> NDArray[np.bool_] | None:
    (shard,) = outcome.info.shards
    with tarfile.open(Path(outcome.location) / shard.name) as archive:
        files = {name.partition(".")[2]: archive.extractfile(name) for name in archive.getnames()}
        found = files.get(member)
        return None if found is None else decode_mask(found.read())


@pytest.mark.parametrize("kind", ["holes", "soft holes", "no holes", "white"])
def test_the_mask_of_an_edit_is_in_the_sample(kind: str, tmp_path: Path, configured: Make, make_picture: Any) -> None:
    source = make_picture(1, 128, 96)
    target = source.copy()
    target[PLACE] = 255 - target[PLACE]
    alpha = np.full((96, 128, 1), 255, np.uint8)
    alpha[PLACE] = {"soft holes": 90, "holes": 0}.get(kind, 255)
    mask = np.concatenate([source, alpha], axis=2)
    if kind == "white":
        mask = np.zeros((96, 128), np.uint8)
        mask[PLACE] = 255
    row = {"img_id": "1", "turn_index": 1, "instruction": "invert the middle"}
    row |= {"source_img": png(source), "mask_img": png(mask), "target_img": png(target)}
    pq.write_table(pa.Table.from_pylist([row]), tmp_path / "train.parquet")
    listed = {"kind": "parquet", "path": str(tmp_path / "train.parquet"), "preset": "magicbrush"}
    if kind == "white":
        listed["mask_is"] = "white"
    outcome = run_build(configured(tmp_path / "out", sources=[listed], image={"longer_side": 64}))
    assert outcome.increment.num_kept == 1
    found = mask_of(outcome, "mask.png")
    if kind == "no holes":
        assert found is None
        return
    wanted = np.zeros((48, 64), np.bool_)
    wanted[10:25, 20:50] = True
    assert found is not None
    assert (found ^ wanted).mean() < 0.01
