"""Tars of others, in a few of the shapes that they have."""

from __future__ import annotations

import io
import json
import tarfile
from collections.abc import Iterable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

Members = Iterable[tuple[str, bytes]]


def picture(seed: int = 0, form: str = "JPEG", size: tuple[int, int] = (48, 32), **values: Any) -> bytes:
    """A smooth random picture."""
    pixels = np.random.default_rng(seed).integers(0, 255, (5, 7, 3), np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).resize(size).save(buffer, form, **values)
    return buffer.getvalue()


def pack(members: Members, form: int = tarfile.GNU_FORMAT) -> bytes:
    """A tar by the standard library."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form) as archive:
        for name, content in members:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return buffer.getvalue()


def captioned(numbers: Iterable[int]) -> list[tuple[str, bytes]]:
    """Pictures with captions and JSON."""
    found = []
    for number in numbers:
        facts = {"caption": f"json {number}", "similarity": number / 8, "license": "CC0", "key": str(number)}
        found += [
            (f"{number:04d}.jpg", picture(number, size=(48 + number, 32))),
            (f"{number:04d}.txt", f"caption {number}".encode()),
            (f"{number:04d}.json", json.dumps(facts).encode()),
        ]
    return found


def write(path: Path, members: Members) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(pack(members))
    return path


@pytest.fixture(scope="session")
def tars() -> SimpleNamespace:
    """The functions above."""
    return SimpleNamespace(picture=picture, pack=pack, captioned=captioned, write=write)


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is derived of an index goes nowhere else."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
