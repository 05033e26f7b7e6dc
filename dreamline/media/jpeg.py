"""JPEG files: decoded at a fraction of their size (DCT scaling) by the fastest library that is installed."""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image
from PIL.JpegImagePlugin import JpegImageFile

from dreamline.media.errors import MediaError, refusing

try:
    import simplejpeg
except ImportError:
    simplejpeg = None
try:
    import cv2 as cv2  # for its neighbours, too

    cv2.setNumThreads(1)  # workers are processes; more threads than that only disturb each other
except ImportError:
    cv2 = None  # type: ignore[assignment]

# libjpeg's warnings that leave no mark on the picture: these files are left to Pillow, which does not see warnings.
# (Extraneous bytes are not among them: that is what damage looks like.)
_HARMLESS = ("invalid sos parameters", "unknown adobe color transform", "bad icc marker")

Size = tuple[int, int]


class Backend(Protocol):
    """One library."""

    @property
    def name(self) -> str:
        """What the manifest calls it."""

    def decode(self, content: bytes, size: Size, at_least: Size, inks: bool) -> NDArray[np.uint8]:
        """Pixels as stored (orientation not applied), of a size of at least `at_least`, or else the full `size`.

        Args:
            content: the file.
            size, at_least: (width, height).
            inks: the file has four components.

        Returns:
            RGB [h, w, 3], or with `inks` CMYK [h, w, 4] where 255 is full ink. All files with inks are taken to
            store them inverted, as Adobe does and everybody expects.

        Raises:
            MediaError: `truncated`, `corrupt` or `memory`.
        """

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        """RGB [h, w, 3] to a JPEG with 4:2:0 and without metadata."""


@dataclass(frozen=True)
class SimpleJpeg:
    """libjpeg-turbo with scales of n/8 up to 5/8; its warnings are errors.

    It has vector code for 1/2 and for the whole, but none for 6/8 and 7/8: the whole takes less time than those.
    """

    name: str = "simplejpeg"

    def decode(self, content: bytes, size: Size, at_least: Size, inks: bool) -> NDArray[np.uint8]:
        space = "CMYK" if inks else "RGB"
        covered = all(-(-side * 5 // 8) >= least for side, least in zip(size, at_least, strict=True))
        least = {"min_width": at_least[0], "min_height": at_least[1]} if covered else {}
        with refusing("corrupt"):
            height, width, _, _ = simplejpeg.decode_jpeg_header(content, strict=False)
            if (width, height) != size:
                raise MediaError("corrupt", f"two headers: {size} and {(width, height)}")
            try:
                pixels: NDArray[np.uint8] = simplejpeg.decode_jpeg(content, space, **least)
            except ValueError as error:
                if not any(words in str(error).lower() for words in _HARMLESS):
                    raise
                return PillowJpeg().decode(content, size, at_least, inks)
        return 255 - pixels if inks else pixels

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        content: bytes = simplejpeg.encode_jpeg(np.ascontiguousarray(pixels), quality, "RGB", "420")
        return content


@dataclass(frozen=True)
class OpenCv:
    """libjpeg-turbo with scales of 1/2, 1/4 and 1/8."""

    name: str = "cv2"

    def decode(self, content: bytes, size: Size, at_least: Size, inks: bool) -> NDArray[np.uint8]:
        if inks:  # cv2 has only its own conversion to RGB, without a profile
            return PillowJpeg().decode(content, size, at_least, inks)
        flags = {
            8: cv2.IMREAD_REDUCED_COLOR_8,
            4: cv2.IMREAD_REDUCED_COLOR_4,
            2: cv2.IMREAD_REDUCED_COLOR_2,
            1: cv2.IMREAD_COLOR,
        }
        factor = next(
            f for f in flags if f == 1 or (-(-size[0] // f) >= at_least[0] and -(-size[1] // f) >= at_least[1])
        )
        with refusing("corrupt"):
            found = cv2.imdecode(np.frombuffer(content, np.uint8), flags[factor] | cv2.IMREAD_IGNORE_ORIENTATION)
            if found is None:
                raise MediaError(*_what_is_wrong(content))
            if factor == 1 and found.shape[1::-1] != size:
                raise MediaError("corrupt", f"two headers: {size} and {found.shape[1::-1]}")
            pixels: NDArray[np.uint8] = cv2.cvtColor(found, cv2.COLOR_BGR2RGB)
        return pixels

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        settings = [cv2.IMWRITE_JPEG_QUALITY, quality]
        settings += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_420]
        done, content = cv2.imencode(".jpg", cv2.cvtColor(pixels, cv2.COLOR_RGB2BGR), settings)
        if not done:
            raise ValueError(f"cv2 cannot encode an array of {pixels.shape}")
        return bytes(content)


@dataclass(frozen=True)
class PillowJpeg:
    """libjpeg-turbo with scales of 1/2, 1/4 and 1/8 (`draft`); always there."""

    name: str = "pillow"

    def decode(self, content: bytes, size: Size, at_least: Size, inks: bool) -> NDArray[np.uint8]:
        with refusing("corrupt"):
            image = JpegImageFile(io.BytesIO(content))
            image.draft(None, at_least)
            return np.asarray(image.convert("CMYK" if inks else "RGB"))

    def encode(self, pixels: NDArray[np.uint8], quality: int) -> bytes:
        target = io.BytesIO()
        Image.fromarray(pixels).save(target, "JPEG", quality=quality, subsampling="4:2:0")
        return target.getvalue()


def _available() -> Mapping[str, Backend]:
    found: list[Backend] = []
    if simplejpeg is not None:
        found.append(SimpleJpeg())
    if cv2 is not None:
        found.append(OpenCv())
    return {backend.name: backend for backend in [*found, PillowJpeg()]}


BACKENDS = _available()
"""What is installed, the fastest first."""

FASTEST: Backend = next(iter(BACKENDS.values()))


def encode_jpeg(pixels: NDArray[np.uint8], quality: int = 95) -> bytes:
    """RGB uint8 [H, W, 3] to a JPEG with 4:2:0 chroma and without metadata."""
    return FASTEST.encode(pixels, quality)


def _what_is_wrong(content: bytes) -> tuple[str, str]:
    ended = b"\xff\xd9" in content[-64:]
    return ("corrupt", "OpenCV refuses the data") if ended else ("truncated", "no end-of-image marker")
