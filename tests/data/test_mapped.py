"""Safetensors files as memory maps: the tensors of the file, without keeping it open, and errors for what is none."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from dreamline.data.mapped import map_tensors


def test_tensors_are_those_of_the_file(tmp_path: Path) -> None:
    expected = {
        "a": torch.randn(3, 5),
        "b": torch.randn(7, 3).half(),
        "c": torch.randn(2, 2).bfloat16(),
        "d": torch.arange(4),
        "e": torch.tensor([1, 2, 255], dtype=torch.uint8),
        "empty": torch.zeros(0, 6, dtype=torch.float16),
    }
    path = tmp_path / "x.safetensors"
    save_file(expected, path, metadata={"a": "b"})
    before = path.read_bytes()
    found = map_tensors(path)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    found["a"].zero_()
    assert path.read_bytes() == before


def test_no_file_stays_open(tmp_path: Path) -> None:
    """A data set of a million samples has more files than a process may open."""
    save_file({"a": torch.ones(3)}, tmp_path / "x.safetensors")
    before = len(os.listdir("/proc/self/fd"))
    held = [map_tensors(tmp_path / "x.safetensors")["a"] for _ in range(50)]
    assert len(os.listdir("/proc/self/fd")) == before
    assert sum(float(value.sum()) for value in held) == 150


@pytest.mark.parametrize("content", [b"", b"1234", b"\xff" * 100, (18).to_bytes(8, "little") + b"no json at all....."])
def test_what_is_no_safetensors_file(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=r"x\.safetensors"):
        map_tensors(path)


def test_a_file_that_is_cut_off(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file({"a": torch.ones(30)}, path)
    path.write_bytes(path.read_bytes()[:-8])
    with pytest.raises(ValueError, match="tensor a of type F32 cannot be read"):
        map_tensors(path)
