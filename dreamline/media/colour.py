"""Colours to sRGB: embedded profiles, CMYK, grey, deep samples and transparency."""

from __future__ import annotations

import io
from functools import cache, lru_cache

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageCms

from dreamline.media.errors import MediaError

MAX_PROFILE = 4 * 2**20  # bytes; press profiles have up to 3 MB
_MODE_OF_SPACE = {"RGB ": "RGB", "GRAY": "L", "CMYK": "CMYK"}
_SAME = 2  # grey levels by which a profile may differ from sRGB and still be taken for it


@cache
def _srgb() -> ImageCms.ImageCmsProfile:
    return ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB"))


@lru_cache(maxsize=16)
def _transform(icc: bytes) -> tuple[str, ImageCms.ImageCmsTransform | None]:
    """The mode a profile is for and its way to sRGB, None where it is sRGB by its effect; mode '' if it is broken."""
    try:
        profile = ImageCms.ImageCmsProfile(io.BytesIO(icc))
        mode = _MODE_OF_SPACE[profile.profile.xcolor_space]
        transform = ImageCms.ImageCmsTransform(profile, _srgb(), mode, "RGB")
        return mode, None if _is_identity(transform, mode) else transform
    except Exception:  # the library's, for hostile bytes: a picture is not lost for a bad profile
        return "", None


def _is_identity(transform: ImageCms.ImageCmsTransform, mode: str) -> bool:
    if mode == "CMYK":
        return False
    levels = np.linspace(0, 255, 9).round().astype(np.uint8)
    channels = np.stack(np.meshgrid(levels, levels, levels), -1).reshape(27, 27, 3)
    probe = Image.fromarray(channels if mode == "RGB" else channels[..., 0])
    seen = np.asarray(transform.apply(probe), np.int16)
    return int(np.abs(seen - np.asarray(probe.convert("RGB"), np.int16)).max()) <= _SAME


def is_srgb(icc: bytes | None) -> bool:
    """Whether a picture with this profile needs no conversion (none is taken for sRGB)."""
    if icc is None:
        return True
    return len(icc) <= MAX_PROFILE and _transform(icc) in (("RGB", None), ("L", None))


def to_srgb(pixels: NDArray[np.uint8], icc: bytes | None) -> tuple[NDArray[np.uint8], bool]:
    """Grey [H, W], RGB [H, W, 3] or CMYK [H, W, 4] (255 is full ink) to sRGB [H, W, 3].

    Returns:
        The picture, and whether its profile had to be ignored: too large, broken, or for another kind of picture.
    """
    mode, transform = ("", None) if icc is None or len(icc) > MAX_PROFILE else _transform(icc)
    if mode == "RGB" and pixels.ndim == 2 and transform is not None:
        pixels = np.repeat(pixels[..., None], 3, axis=2)
    own = "L" if pixels.ndim == 2 else "RGB" if pixels.shape[2] == 3 else "CMYK"
    if mode == "L" and own == "RGB" and icc is not None and np.array_equal(pixels[..., 0], pixels[..., 1]):
        pixels, own = np.ascontiguousarray(pixels[..., 0]), "L"  # a grey JPEG, decoded to three channels
    ignored = icc is not None and mode != own and not (mode == "RGB" and own == "L")
    if transform is not None and mode == own:
        image = Image.fromarray(np.ascontiguousarray(pixels), own)
        return np.asarray(transform.apply(image)), ignored
    if own == "CMYK":
        return np.asarray(Image.fromarray(np.ascontiguousarray(pixels), "CMYK").convert("RGB")), ignored
    return np.repeat(pixels[..., None], 3, axis=2) if own == "L" else pixels, ignored


def plain_pixels(
    image: Image.Image, icc: bytes | None, background: tuple[int, int, int]
) -> tuple[NDArray[np.uint8], bytes | None, bool]:
    """A loaded picture of any mode as grey [H, W], RGB [H, W, 3] or CMYK [H, W, 4], 8 bits, without alpha.

    Returns:
        The pixels, the profile that still has to be applied to them, and whether one had to be ignored.

    Raises:
        MediaError: `mode`.
    """
    if image.mode.startswith("I;16"):
        deep = np.asarray(image)
        grey = (deep >> 8).astype(np.uint8)
        if isinstance(clear := image.info.get("transparency"), int):
            rgb = np.repeat(grey[..., None], 3, axis=2)
            rgb[deep == clear] = background
            return rgb, icc, False
        return grey, icc, False
    if image.mode not in ("1", "L", "LA", "La", "P", "PA", "RGB", "RGBA", "RGBa", "RGBX", "CMYK", "YCbCr"):
        raise MediaError("mode", f"a picture of mode {image.mode}")
    if image.has_transparency_data:
        flat, ignored = _flatten(image, icc, background)
        return flat, None, ignored
    if image.mode in ("L", "RGB", "CMYK"):
        return np.asarray(image), icc, False
    return np.asarray(image.convert("L" if image.mode == "1" else "RGB")), icc, False


def _flatten(image: Image.Image, icc: bytes | None, background: tuple[int, int, int]) -> tuple[NDArray[np.uint8], bool]:
    """Transparency is mixed with a colour that is stated in sRGB, so the profile is applied before.

    In strips, because whole pictures would take five times their size in copies.
    """
    flat = np.empty((image.height, image.width, 3), np.uint8)
    ignored = False
    rows = max(1, 2**20 // image.width)
    for top in range(0, image.height, rows):
        strip = image.crop((0, top, image.width, min(top + rows, image.height)))
        rgba = (strip.convert("LA") if strip.mode == "La" else strip).convert("RGBA")
        colours, ignored = to_srgb(np.asarray(rgba.convert("RGB")), icc)
        below = Image.new("RGB", rgba.size, background)
        below.paste(Image.fromarray(colours), mask=rgba.getchannel("A"))
        flat[top : top + rows] = np.asarray(below)
    return flat, ignored
