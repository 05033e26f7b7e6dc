"""JPEG bytes to a resized JPEG, per CPU-second: ours, Pillow, OpenCV, and DCT decoding alone as the limit.

The limit decodes at the smallest DCT scale that covers the target; `whole` decodes the whole picture.

    python benchmarks/decode.py --json decode.json      (--quick: fewer pictures)

Every method handles a picture before the next picture comes, in several rounds, so that all meet the same weather; of
each picture and method the fastest round counts. Output is quality 95, 4:2:0 for all. Pictures are made here: pink
noise (amplitude 1/f^1.15) with gradients, edges and grain, JPEG quality 90.
"""

from __future__ import annotations

import argparse
import io
import time
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import Image
from runs import write_record

from dreamline.media.config import DecodeConfig
from dreamline.media.decode import decode, encode
from dreamline.media.geometry import Fit, cover, shorter_side
from dreamline.media.jpeg import encode_jpeg

Pixels = NDArray[np.uint8]
MARGIN = 256
CONFIG = DecodeConfig()


def pictures(
    width: int, height: int, number: int, seed: int = 0, grain: float = 4, falloff: float = 1.15
) -> list[bytes]:
    """JPEG files that are about as hard to decode as photographs.

    `grain` is the deviation of white noise, of 255; the amplitude of everything else is 1/f^falloff.
    """
    rng = np.random.default_rng(seed)
    fields = [_pink(rng, width + MARGIN, height + MARGIN, falloff) for _ in range(min(8, number + 2))]

    def crop() -> NDArray[np.float32]:
        left, top = rng.integers(0, MARGIN, 2)
        return fields[rng.integers(len(fields))][top : top + height, left : left + width]

    files = []
    for _ in range(number):
        slope = rng.uniform(-80, 80, 2)
        light = 38 * crop() + slope[0] * np.linspace(-1, 1, width, dtype=np.float32) + rng.uniform(80, 170)
        light += (slope[1] * np.linspace(-1, 1, height, dtype=np.float32))[:, None]
        for _ in range(3):
            corners = cv2.convexHull(rng.integers(0, (width, height), (4, 2)).astype(np.int32))
            shape = np.zeros((height, width), np.float32)
            light += cv2.fillConvexPoly(shape, corners, float(rng.uniform(-40, 40)))
        light += rng.standard_normal(light.shape, np.float32) * grain
        ycc = np.stack([light, 128 + 14 * crop(), 128 + 14 * crop()], -1).clip(0, 255).astype(np.uint8)
        files.append(encode_jpeg(np.asarray(Image.fromarray(ycc, "YCbCr").convert("RGB")), 90))
    return files


def _pink(rng: np.random.Generator, width: int, height: int, falloff: float) -> NDArray[np.float32]:
    x, y = np.fft.rfftfreq(width)[None], np.fft.fftfreq(height)[:, None]
    radius = np.hypot(x, y)
    radius[0, 0] = np.inf
    waves = (rng.standard_normal(radius.shape) + 1j * rng.standard_normal(radius.shape)) / radius**falloff
    field = np.fft.irfft2(waves, (height, width))
    return np.asarray(field / field.std(), np.float32)


def methods(fit: Fit, width: int, height: int) -> dict[str, Callable[[bytes], object]]:
    """Everything that is measured; all but the two that only decode end with the bytes of the same geometry."""
    geometry = fit(width, height)
    left, top, right, bottom = geometry.box

    def ours(content: bytes) -> bytes:
        return encode(decode(content, CONFIG, fit), CONFIG).content

    def limit(content: bytes) -> Pixels:
        pixels: Pixels = simplejpeg.decode_jpeg(content, min_width=geometry.scaled[0], min_height=geometry.scaled[1])
        return pixels

    def whole(content: bytes) -> Pixels:
        pixels: Pixels = simplejpeg.decode_jpeg(content)
        return pixels

    def pillow(content: bytes) -> bytes:
        image = Image.open(io.BytesIO(content)).convert("RGB")
        target = io.BytesIO()
        small = image.resize(geometry.scaled, Image.Resampling.LANCZOS).crop(geometry.box)
        small.save(target, "JPEG", quality=95, subsampling="4:2:0")
        return target.getvalue()

    def opencv(content: bytes) -> bytes:
        image = cv2.imdecode(np.frombuffer(content, np.uint8), cv2.IMREAD_COLOR)
        small = cv2.resize(image, geometry.scaled, interpolation=cv2.INTER_AREA)[top:bottom, left:right]
        return bytes(cv2.imencode(".jpg", small, [cv2.IMWRITE_JPEG_QUALITY, 95])[1])

    return {"ours": ours, "limit": limit, "whole": whole, "Pillow LANCZOS": pillow, "OpenCV full": opencv}


def measure(files: list[bytes], competitors: dict[str, Callable[[bytes], object]], rounds: int) -> dict[str, float]:
    """Pictures per CPU-second."""
    for run in competitors.values():
        run(files[0])
    seconds = {name: np.full((rounds, len(files)), np.inf) for name in competitors}
    for i in range(rounds):
        for j, content in enumerate(files):
            for name, run in competitors.items():
                start = time.process_time()
                run(content)
                seconds[name][i, j] = time.process_time() - start
    return {name: len(files) / float(taken.min(0).sum()) for name, taken in seconds.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="fewer pictures and rounds")
    parser.add_argument("--json", type=Path, help="where to write the result")
    arguments = parser.parse_args()
    rounds = 5 if arguments.quick else 7
    web = (1024, 768, pictures(1024, 768, 10 if arguments.quick else 24))
    camera = (4000, 3000, pictures(4000, 3000, 2 if arguments.quick else 5))
    cases = [
        ("1024x768 to 341x256", shorter_side(256), web),
        ("1024x768 to 683x512", shorter_side(512), web),
        ("12 MP to 1365x1024", shorter_side(1024), camera),
        ("12 MP to the bucket 1152x896", cover(1152, 896), camera),
    ]
    rows = []
    for title, fit, (width, height, files) in cases:
        speed = measure(files, methods(fit, width, height), rounds)
        for name in ("limit", "whole", "Pillow LANCZOS", "OpenCV full"):
            ratio = speed["ours"] / speed[name]
            row = {"what": f"{title}, {name}", "ours": round(speed["ours"], 2), "theirs": round(speed[name], 2)}
            rows.append({**row, "ratio": round(ratio, 3), "unit": "images per CPU-second"})
            print(f"{row['what']:45} ours {row['ours']:8.2f}   theirs {row['theirs']:8.2f}   {ratio:5.2f}x", flush=True)
    write_record(arguments.json, "decode", rows)


if __name__ == "__main__":
    main()
