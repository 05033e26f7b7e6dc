"""Edit pairs whose truth is known: procedural photographs with objects, and pictures of the scene world.

A photograph is pink noise (natural spectra fall as 1 / f) with a gradient of light, shaded and textured objects, and
sensor noise. It is no replacement for real pairs: it tells what a check can see, and that limits lie on the right side.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from data_prep.edits.pair import dilate
from data_prep.edits.verdict import Array, Mask, Pixels
from data_prep.edits.vocabulary import EditType, edit_type_of
from dreamline.scenes.edits import sample_edit
from dreamline.scenes.render import render
from dreamline.scenes.world import World

PHOTO_TYPES: tuple[EditType, ...] = (
    *("add", "remove", "replace", "recolour", "text", "move", "style", "global", "background"),
)
_INSTRUCTIONS: Mapping[EditType, str] = {
    "add": "add a ball to the picture",
    "remove": "remove the ball",
    "replace": "replace the ball with a box",
    "recolour": "paint the ball in another colour",
    "text": "change the text on the sign",
    "move": "move the ball to the other side",
    "style": "turn the picture into a painting",
    "global": "make it evening",
    "background": "change the background",
}


@dataclass(frozen=True)
class EditPair:
    """A triplet with its truth."""

    source: Pixels
    target: Pixels
    instruction: str
    type: EditType
    mask: Mask  # where the edit was made
    origin: str  # "photo" or "scene"


def pink_noise(rng: np.random.Generator, side: int, exponent: float = 1.0) -> Array:
    """Noise of zero mean and unit variance whose amplitude falls as 1 / f^exponent, float32 [side, side]."""
    fy, fx = np.fft.fftfreq(side)[:, None], np.fft.rfftfreq(side)[None]
    amplitude = np.maximum(np.hypot(fx, fy), 1 / side) ** -exponent
    noise = np.fft.irfft2(np.fft.rfft2(rng.standard_normal((side, side))) * amplitude, s=(side, side))
    return np.asarray((noise - noise.mean()) / noise.std(), np.float32)


def photo_background(rng: np.random.Generator, side: int) -> Array:
    """A surface in changing light, float32 [side, side, 3], about 20..235."""
    y, x = np.mgrid[0:side, 0:side].astype(np.float32) / side - 0.5
    angle = rng.uniform(0, 2 * np.pi)
    light = rng.uniform(20, 60) * (np.cos(angle) * x + np.sin(angle) * y)
    texture = rng.uniform(8, 24) * pink_noise(rng, side, rng.uniform(0.9, 1.4))
    tint = rng.uniform(3, 8, 3) * np.stack([pink_noise(rng, side, 1.5) for _ in range(3)], 2)
    return np.asarray(rng.uniform(80, 170, 3) + (light + texture)[..., None] + tint, np.float32).clip(15, 240)


@dataclass(frozen=True)
class Thing:
    """A shaded, textured object: its coverage [side, side] and its shading, to be multiplied by a colour."""

    coverage: Array
    shading: Array

    def onto(self, canvas: Array, colour: Array) -> Array:
        """The canvas with the thing on it."""
        alpha = self.coverage[..., None]
        return np.asarray(canvas * (1 - alpha) + alpha * (colour * self.shading[..., None]).clip(5, 250), np.float32)


def thing(rng: np.random.Generator, side: int, x: float, y: float, radius: float) -> Thing:
    """An ellipse or a polygon around (x, y) px."""
    num_corners = int(rng.integers(3, 9))
    angles = np.sort(rng.uniform(0, 2 * np.pi, num_corners)) if num_corners < 8 else np.linspace(0, 2 * np.pi, 48)
    if num_corners < 8:  # corners all around, or the polygon may be a sliver
        angles = np.linspace(0, 2 * np.pi, num_corners, endpoint=False) + rng.uniform(-0.3, 0.3, num_corners)
    reach = radius * np.array([1.0, rng.uniform(0.6, 1.0)])
    corners = np.stack([np.cos(angles), np.sin(angles)], 1) * reach + (x, y)
    coverage = np.zeros((side, side), np.uint8)
    cv2.fillPoly(coverage, [np.rint(corners * 16).astype(np.int32)], 255, lineType=cv2.LINE_AA, shift=4)
    soft = cv2.GaussianBlur(coverage.astype(np.float32) / 255, (0, 0), 0.7)
    yy, xx = np.mgrid[0:side, 0:side].astype(np.float32)
    light = 1 - 0.25 * ((xx - x) + (yy - y)) / radius
    return Thing(soft, np.asarray(light.clip(0.5, 1.4) * (1 + 0.08 * pink_noise(rng, side)), np.float32))


def photo_pair(rng: np.random.Generator, edit_type: EditType, side: int = 512) -> EditPair:
    """An accepted edit of a photograph; the pictures carry noise, and some the traces of JPEG or of a decoder."""
    canvas = photo_background(rng, side)
    for _ in range(int(rng.integers(1, 4))):  # what stays
        x, y = rng.uniform(0.1, 0.9, 2) * side
        still = thing(rng, side, x, y, rng.uniform(0.05, 0.12) * side)
        canvas = still.onto(canvas, _colour(rng))
    radius = rng.uniform(0.08, 0.2) * side
    x, y = rng.uniform(0.25, 0.75, 2) * side
    one, colour = thing(rng, side, x, y, radius), _contrasting(rng, canvas, x, y)
    mask = one.coverage > 0.02
    after: Array
    if edit_type in ("add", "remove"):
        before, after = canvas, one.onto(canvas, colour)
        if edit_type == "remove":
            before, after = after, before
    elif edit_type == "replace":
        other = thing(rng, side, x, y, radius * rng.uniform(0.8, 1.2))
        before, after = one.onto(canvas, colour), other.onto(canvas, _contrasting(rng, canvas, x, y))
        mask |= other.coverage > 0.02
    elif edit_type == "recolour":
        before, after = one.onto(canvas, colour), one.onto(canvas, _contrasting(rng, canvas, x, y, colour))
    elif edit_type == "move":
        dx, dy = rng.uniform(0.25, 0.4) * side * np.array([np.sign(side / 2 - x), np.sign(side / 2 - y)])
        step = np.array([[1, 0, dx], [0, 1, dy]], np.float32)
        other = Thing(*(cv2.warpAffine(part, step, (side, side)) for part in (one.coverage, one.shading)))
        before, after = one.onto(canvas, colour), other.onto(canvas, colour)
        mask |= other.coverage > 0.02
    elif edit_type == "text":
        plain = _sign(canvas, x, y, radius)
        first, second = rng.choice(["HOTEL", "BAKERY", "OPEN", "No 42", "coffee", "Exit"], 2, replace=False)
        before = plain if rng.random() < 0.3 else _write(plain, first, x, y, radius)
        after = _write(plain, second, x, y, radius)
        mask = np.abs(after - before).max(2) > 4
    elif edit_type == "background":
        before, after = one.onto(canvas, colour), one.onto(photo_background(rng, side), colour)
        mask = ~mask
    else:
        before = one.onto(canvas, colour)
        after = _restyle(rng, before) if edit_type == "style" else _relight(rng, before)
        mask = np.ones((side, side), bool)
    noise = np.asarray(rng.normal(0, rng.uniform(0.5, 2.0), before.shape), np.float32)
    source, target = quantise(before + noise), quantise(after + noise)
    trace = rng.integers(3)
    if trace == 1:
        source, target = jpeg(source, int(rng.integers(88, 97))), jpeg(target, int(rng.integers(88, 97)))
    elif trace == 2:  # a decoder softens a little and adds grain of its own
        soft = cv2.GaussianBlur(target.astype(np.float32), (0, 0), 0.4)
        target = quantise(soft + rng.normal(0, 0.8, soft.shape))
    return EditPair(source, target, _INSTRUCTIONS[edit_type], edit_type, dilate(mask, 2), "photo")


def scene_pair(rng: np.random.Generator, side: int = 512) -> EditPair:
    """An edit of the scene world, drawn large."""
    world = World()
    edit = sample_edit(world, rng, "train")
    source, target = render(edit.source, world, side), render(edit.target, world, side)
    mask = np.asarray(np.abs(source.astype(np.int16) - target).max(2) > 0)
    return EditPair(source, target, edit.instruction, edit_type_of(edit.type), dilate(mask, 2), "scene")


def jpeg(pixels: Pixels, quality: int) -> Pixels:
    """The picture after a JPEG round trip."""
    _, content = cv2.imencode(".jpg", pixels[..., ::-1], [cv2.IMWRITE_JPEG_QUALITY, quality])
    return np.ascontiguousarray(np.asarray(cv2.imdecode(content, cv2.IMREAD_COLOR), np.uint8)[..., ::-1])


def quantise(image: npt.NDArray[Any]) -> Pixels:
    """The nearest picture."""
    return np.asarray(np.rint(image).clip(0, 255), np.uint8)


def _colour(rng: np.random.Generator) -> Array:
    hue = np.array([[[rng.uniform(0, 360), rng.uniform(0.4, 0.9), rng.uniform(0.35, 0.9)]]], np.float32)
    return np.asarray(cv2.cvtColor(hue, cv2.COLOR_HSV2RGB)[0, 0] * 255, np.float32)


def _contrasting(rng: np.random.Generator, canvas: Array, x: float, y: float, old: Array | None = None) -> Array:
    """A colour that is visible at a place, and unlike an old one."""
    near = canvas[int(y) - 20 : int(y) + 20, int(x) - 20 : int(x) + 20].mean((0, 1))
    while True:
        colour = _colour(rng)
        if np.linalg.norm(colour - near) > 70 and (old is None or np.linalg.norm(colour - old) > 70):
            return colour


def _sign(canvas: Array, x: float, y: float, radius: float) -> Array:
    """A light plate to write on."""
    plate, (w, h) = canvas.copy(), (int(1.1 * radius), int(0.5 * radius))
    plate[int(y) - h : int(y) + h, int(x) - w : int(x) + w] = (225, 222, 210)
    return plate


def _write(canvas: Array, text: str, x: float, y: float, radius: float) -> Array:
    (width, height), _ = cv2.getTextSize(text, cv2.FONT_HERSHEY_SIMPLEX, 1.0, 2)
    scale = 1.8 * radius / width
    at = (int(x - width * scale / 2), int(y + height * scale / 2))
    thickness = max(2, round(radius / 20))
    written = quantise(canvas)
    cv2.putText(written, text, at, cv2.FONT_HERSHEY_SIMPLEX, scale, (30, 30, 40), thickness, cv2.LINE_AA)
    return written.astype(np.float32)


def _restyle(rng: np.random.Generator, image: Array) -> Array:
    """A painting, a poster, or a pencil drawing."""
    which = rng.integers(3)
    if which == 0:
        smooth = cv2.bilateralFilter(image, 9, 60, 5)
        hsv = cv2.cvtColor(smooth / 255, cv2.COLOR_RGB2HSV)
        hsv[..., 1] = (hsv[..., 1] * 1.6 + 0.1).clip(0, 1)
        return np.asarray(
            cv2.cvtColor(hsv, cv2.COLOR_HSV2RGB) * 255 + 4 * pink_noise(rng, len(image))[..., None], np.float32
        )
    if which == 1:
        return np.asarray(np.floor(image / 64) * 64 + 40, np.float32)
    luma = cv2.cvtColor(image, cv2.COLOR_RGB2GRAY)
    drawn = 255 * luma / np.maximum(cv2.GaussianBlur(luma, (0, 0), 6), 1)
    return np.repeat(np.asarray(drawn, np.float32).clip(0, 250)[..., None], 3, 2)


def _relight(rng: np.random.Generator, image: Array) -> Array:
    """Evening, warm light, or fog."""
    which = rng.integers(3)
    if which == 0:
        return np.asarray(image * np.array([0.45, 0.5, 0.75]), np.float32)
    if which == 1:
        return np.asarray(image * np.array([1.15, 0.95, 0.65]), np.float32)
    return np.asarray(image * 0.6 + 85, np.float32)
