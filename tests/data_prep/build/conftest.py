"""Small sets of pictures, and a build of them."""

from __future__ import annotations

import os
import socket
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from data_prep.build.config import BuildConfig
from dreamline.config import build

Pixels = NDArray[np.uint8]


def picture(seed: int, width: int = 96, height: int = 64) -> Pixels:
    """A smooth random picture, BGR."""
    rng = np.random.default_rng(seed)
    return np.asarray(cv2.resize(rng.integers(0, 255, (6, 8, 3), np.uint8), (width, height)), np.uint8)


def jpeg(pixels: Pixels, quality: int = 90) -> bytes:
    ok, content = cv2.imencode(".jpg", pixels, [cv2.IMWRITE_JPEG_QUALITY, quality])
    assert ok
    return bytes(content.tobytes())


def fill(folder: Path, seeds: range) -> Path:
    """A folder of pictures named after their captions."""
    folder.mkdir(parents=True, exist_ok=True)
    for seed in seeds:
        (folder / f"picture {seed:03d}.jpg").write_bytes(jpeg(picture(seed)))
    return folder


@pytest.fixture
def pictures() -> Callable[[Path, range], Path]:
    return fill


@pytest.fixture
def make_picture() -> Callable[..., Pixels]:
    return picture


@pytest.fixture
def make_jpeg() -> Callable[..., bytes]:
    return jpeg


@pytest.fixture
def configured() -> Callable[..., BuildConfig]:
    """A configuration of one folder, or of the sources given."""

    def make(output: Path | str, folder: Path | None = None, **values: Any) -> BuildConfig:
        sources = [{"kind": "folder", "path": str(folder), "caption": "filename", "name": "pictures"}]
        return build(
            BuildConfig, {"name": "mine", "sources": sources, "output": str(output), "workers": 1, **values}, "test"
        )

    return make


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """A bucket on a local S3 server: `s3://bucket`."""
    import boto3
    from moto.server import ThreadedMotoServer

    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    server = ThreadedMotoServer("127.0.0.1", port, verbose=False)
    server.start()
    address = f"http://127.0.0.1:{port}"
    settings = {
        "AWS_ENDPOINT_URL": address,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
        "NO_PROXY": "127.0.0.1",
    }
    before = {name: os.environ.get(name) for name in settings}
    os.environ.update(settings)
    for _ in range(100):
        try:
            urllib.request.build_opener(urllib.request.ProxyHandler({})).open(f"{address}/moto-api", timeout=5)
            break
        except OSError:
            time.sleep(0.1)
    boto3.client("s3").create_bucket(Bucket="bucket")
    yield "s3://bucket"
    server.stop()
    for name, value in before.items():
        if value is None:
            os.environ.pop(name, None)
        else:
            os.environ[name] = value
