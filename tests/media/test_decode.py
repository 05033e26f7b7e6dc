"""Decoding: what comes out of every kind of picture file."""

from __future__ import annotations

import io
from functools import cache

import numpy as np
import pytest
import simplejpeg
from PIL import Image, ImageCms, ImageOps

from dreamline.media.config import DecodeConfig
from dreamline.media.decode import Decoded, decode, encode
from dreamline.media.errors import MediaError
from dreamline.media.geometry import Geometry, cover, scaled_to, shorter_side
from dreamline.media.header import read_header
from dreamline.media.jpeg import BACKENDS, encode_jpeg

CONFIG = DecodeConfig()
SRGB = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
# The same profile with the primaries of red and green exchanged: it turns red into green.
SWAPPED = SRGB.replace(b"rXYZ", b"tmp_", 1).replace(b"gXYZ", b"rXYZ", 1).replace(b"tmp_", b"gXYZ", 1)


@cache
def photo(width: int, height: int, seed: int = 0) -> np.ndarray:
    """Waves (fine in brightness, broad in colour), an edge and some grain: uint8 [height, width, 3]."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[:height, :width] / max(width, height)

    def waves(number: int, most: float) -> np.ndarray:
        terms = rng.uniform(-most, most, (number, 2)), rng.uniform(0, 6.28, number)
        return sum(np.sin(6.28 * (a * x + b * y) + p) for (a, b), p in zip(*terms, strict=True))

    bright = 128 + 20 * waves(4, 10) + 40 * ((x > 0.3) & (y > 0.2) & (x + y < 1.1)) + rng.normal(0, 2, x.shape)
    return np.clip(np.stack([bright + 15 * waves(2, 2) for _ in range(3)], -1), 0, 255).astype(np.uint8)


def file(image: Image.Image | np.ndarray, kind: str, **options: object) -> bytes:
    target = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(target, kind, **options)
    return target.getvalue()


def read(content: bytes, to: object = None, **config: object) -> Decoded:
    decoded = decode(content, DecodeConfig(**config), to)
    assert decoded.pixels.dtype == np.uint8
    assert decoded.pixels.shape[2] == 3
    assert decoded.pixels.flags.c_contiguous
    return decoded


def psnr(a: np.ndarray, b: np.ndarray) -> float:
    return float(10 * np.log10(255**2 / max(np.mean((a.astype(float) - b.astype(float)) ** 2), 1e-9)))


def reason_of(content: bytes, to: object = None, **config: object) -> str:
    with pytest.raises(MediaError) as caught:
        decode(content, DecodeConfig(**config), to)
    assert caught.value.detail
    return caught.value.reason


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "BMP", "TIFF", "GIF", "JPEG", "AVIF"])
def test_every_format_gives_its_pixels(kind: str) -> None:
    pixels = photo(60, 40)
    lossless = {"WEBP": {"lossless": True}, "JPEG": {"quality": 98, "subsampling": 0}, "AVIF": {"quality": 95}}
    decoded = read(file(pixels, kind, **lossless.get(kind, {})))
    assert (decoded.header.format, decoded.header.width, decoded.header.height) == (kind, 60, 40)
    if kind in ("PNG", "WEBP", "BMP", "TIFF"):
        assert np.array_equal(decoded.pixels, pixels)
    else:
        assert psnr(decoded.pixels, pixels) > (25 if kind == "GIF" else 35)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_applied_once(kind: str, orientation: int) -> None:
    pixels = photo(96, 64)
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if kind == "WEBP" else {"quality": 95} if kind in ("JPEG", "AVIF") else {}
    content = file(pixels, kind, exif=exif, **options)
    expected = ImageOps.exif_transpose(Image.open(io.BytesIO(content))).convert("RGB")
    decoded = read(content)
    assert (decoded.header.width, decoded.header.height) == expected.size == decoded.pixels.shape[1::-1]
    assert psnr(decoded.pixels, np.asarray(expected)) > 40
    # A box out of the scaled picture is cut after turning.
    geometry = Geometry((expected.width // 2, expected.height // 2), 20, 10, 5, 7)
    cut = read(content, geometry).pixels
    assert psnr(cut, np.asarray(expected.resize(geometry.scaled, Image.Resampling.BOX).crop(geometry.box))) > 28
    if kind == "JPEG":
        assert (decoded.original is not None) == (orientation == 1)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF"])
def test_profiles_are_applied(kind: str) -> None:
    red = np.full((32, 48, 3), (200, 30, 30), np.uint8)
    options = {"lossless": True} if kind == "WEBP" else {}
    plain = read(file(red, kind, icc_profile=SRGB, **options))
    assert np.abs(plain.pixels.astype(int) - red).max() <= 4
    assert (plain.original is not None) == (kind in CONFIG.keep)
    swapped = read(file(red, kind, icc_profile=SWAPPED, **options))
    assert (swapped.pixels[..., 1] > 150).all()
    assert (swapped.pixels[..., 0] < 100).all()
    assert swapped.original is None
    assert swapped.notes == ()
    assert not Image.open(io.BytesIO(encode(swapped, CONFIG).content)).info.get("icc_profile")


@pytest.mark.parametrize("icc", [b"no profile", SRGB[:200], SRGB + bytes(5 * 2**20)], ids=["text", "cut", "huge"])
def test_a_broken_profile_is_noted_and_ignored(icc: bytes) -> None:
    pixels = photo(32, 32)
    decoded = read(file(pixels, "TIFF", icc_profile=icc))
    assert decoded.notes == ("icc_ignored",)
    assert np.array_equal(decoded.pixels, pixels)


def test_a_broken_profile_segment_of_a_jpeg_is_ignored() -> None:
    content = file(photo(64, 48), "JPEG", quality=95)
    broken = content[:2] + b"\xff\xe2\0\x20ICC_PROFILE\0\1\1" + bytes(16) + content[2:]
    decoded = read(broken)
    assert decoded.notes == ("icc_ignored",)
    assert psnr(decoded.pixels, read(content).pixels) > 45


def test_profiles_of_grey_pictures() -> None:
    grey = photo(32, 32)[..., 0]
    for kind in ("PNG", "JPEG"):
        decoded = read(file(grey, kind, icc_profile=SWAPPED, **({"quality": 100} if kind == "JPEG" else {})))
        assert decoded.notes == ()
        assert np.abs(decoded.pixels.astype(int) - grey[..., None]).max() <= 4  # grey stays grey
    assert read(file(photo(32, 32), "PNG", icc_profile=_cmyk_profile())).notes == ("icc_ignored",)


def _cmyk_profile() -> bytes:
    """The smallest CMYK profile: a lookup table (2 points per ink) to Lab in which black ink only gives mid-grey."""
    table = bytearray(b"mft1" + bytes(4) + bytes([4, 3, 2, 0]))
    table += b"".join(int(v * 65536).to_bytes(4, "big") for v in (1, 0, 0, 0, 1, 0, 0, 0, 1))
    table += bytes(range(256)) * 4
    for inks in range(16):
        cyan, magenta, yellow, black = (inks >> shift & 1 for shift in (3, 2, 1, 0))
        lightness = 255 - 40 * (cyan + magenta + yellow) - 100 * black
        table += bytes([max(lightness, 0), 128 + 50 * (magenta - cyan), 128 + 50 * (yellow - (cyan | magenta))])
    table += bytes(range(256)) * 3
    white = b"XYZ " + bytes(4) + b"".join(v.to_bytes(4, "big") for v in (0xF6D6, 0x10000, 0xD32D))
    text = b"desc" + bytes(4) + (5).to_bytes(4, "big") + b"test\0" + bytes(79)
    blocks = {b"desc": text, b"wtpt": white, b"A2B0": bytes(table), b"cprt": b"text" + bytes(4) + b"none\0\0\0\0"}
    offset = 128 + 4 + 12 * len(blocks)
    tags, body = len(blocks).to_bytes(4, "big"), b""
    for name, block in blocks.items():
        block += bytes(-len(block) % 4)
        tags += name + (offset + len(body)).to_bytes(4, "big") + len(block).to_bytes(4, "big")
        body += block
    head = bytearray(128)
    head[8:12], head[12:24] = b"\x02\x40\0\0", b"prtrCMYKLab "
    head[36:40], head[68:80] = b"acsp", white[8:]
    head[0:4] = (offset + len(body)).to_bytes(4, "big")
    return bytes(head) + tags + body


def test_cmyk_with_and_without_profile() -> None:
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[..., 3] = 255
    image = Image.fromarray(inks, "CMYK")
    for kind in ("JPEG", "TIFF"):  # Pillow writes JPEG the way Adobe does: inverted
        assert read(file(image, kind)).pixels.max() < 8
        profiled = read(file(image, kind, icc_profile=_cmyk_profile()))
        assert profiled.notes == ()
        assert 110 < profiled.pixels.mean() < 180
        assert profiled.original is None
    assert read(file(image, "JPEG", icc_profile=SRGB)).notes == ("icc_ignored",)


def test_ycck() -> None:
    inks = np.zeros((32, 32, 4), np.uint8)
    inks[..., 1:3] = 255  # magenta and yellow: red
    content = simplejpeg.encode_jpeg(255 - inks, 95, "CMYK", "444")
    assert content[content.index(b"Adobe") + 11] == 2  # the marker's transform: YCCK
    pixels = read(content, shorter_side(16)).pixels
    assert pixels.shape == (16, 16, 3)
    assert np.abs(pixels.astype(int) - (255, 0, 0)).max() <= 6


def test_sixteen_bits_are_scaled_not_clipped() -> None:
    ramp = np.linspace(0, 65535, 64 * 32).reshape(32, 64).astype(np.uint16)
    for kind in ("PNG", "TIFF"):
        decoded = read(file(Image.fromarray(ramp), kind))
        assert decoded.header.bits == 16
        assert np.abs(decoded.pixels[..., 0].astype(int) - ramp / 257).max() <= 1
        assert decoded.original is None
    import cv2

    colour = np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1)
    for suffix in (".png", ".tiff"):
        content = bytes(cv2.imencode(suffix, colour[..., ::-1])[1])
        decoded = read(content)
        assert decoded.header.bits == 16
        assert np.abs(decoded.pixels - colour / 257).max() <= 1


def test_samples_without_a_range_are_refused() -> None:
    for array in (np.ones((8, 8), np.float32), np.ones((8, 8), np.int32)):
        assert reason_of(file(Image.fromarray(array), "TIFF")) == "mode"


def test_one_bit_and_palettes() -> None:
    checks = (np.indices((16, 24)).sum(0) % 2 * 255).astype(np.uint8)
    for kind in ("PNG", "TIFF", "BMP", "GIF"):
        bits = read(file(Image.fromarray(checks).convert("1"), kind))
        assert np.array_equal(bits.pixels, np.repeat(checks[..., None], 3, 2))
    palette = Image.fromarray(photo(24, 16)).quantize(16)
    for kind in ("PNG", "GIF", "BMP", "TIFF"):
        assert np.array_equal(read(file(palette, kind)).pixels, np.asarray(palette.convert("RGB")))


def test_alpha_is_put_over_the_stated_colour() -> None:
    rgba = np.zeros((16, 16, 4), np.uint8)
    rgba[..., 0], rgba[:8, :, 3], rgba[8:, :, 3] = 200, 255, 51  # opaque red over red at a fifth
    over_blue = np.array([[200, 0, 0], [40, 0, 204]])
    for kind in ("PNG", "WEBP", "TIFF"):
        options = {"lossless": True, "exact": True} if kind == "WEBP" else {}
        decoded = read(file(Image.fromarray(rgba), kind, **options), background=(0, 0, 255))
        assert decoded.header.alpha
        assert decoded.original is None
        assert np.abs(decoded.pixels[[0, 15], 0].astype(int) - over_blue).max() <= 1
    swapped = read(file(Image.fromarray(rgba), "PNG", icc_profile=SWAPPED), background=(0, 0, 255))
    assert swapped.pixels[0, 0, 1] > 150
    assert swapped.pixels[15, 0, 2] > 195  # the background is sRGB already
    grey = Image.fromarray(rgba[..., [0, 3]], "LA")
    assert read(file(grey, "PNG")).pixels[15, 0].tolist() == [244, 244, 244]
    palette = Image.fromarray(np.array([[0, 1]], np.uint8), "P")
    palette.putpalette([255, 0, 0, 0, 255, 0])
    for kind in ("PNG", "GIF"):
        clear = read(file(palette, kind, transparency=1))
        assert clear.pixels[0].tolist() == [[255, 0, 0], [255, 255, 255]]
    deep = Image.fromarray(np.array([[0, 1000, 65535]], np.uint16))
    assert read(file(deep, "PNG", transparency=1000)).pixels[0, :, 0].tolist() == [0, 255, 255]


@pytest.mark.parametrize("kind", ["GIF", "WEBP", "PNG", "AVIF", "TIFF"])
def test_animations_follow_the_rule(kind: str) -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    content = file(frames[0], kind, save_all=True, append_images=frames[1:])
    assert reason_of(content) == "animated"
    decoded = read(content, animated="first")
    assert decoded.header.frames in (2, 3)
    assert decoded.notes == ("first_frame",)
    assert decoded.original is None
    assert np.abs(decoded.pixels.astype(int) - (255, 0, 0)).max() <= 8
    single = file(frames[0], kind, save_all=True)
    assert read(single).header.frames == 1


def test_pictures_behind_a_jpeg_are_not_an_animation() -> None:
    first, second = Image.fromarray(photo(64, 48)), Image.fromarray(photo(64, 48, seed=1))
    content = file(first, "MPO", save_all=True, append_images=[second])
    assert psnr(read(content).pixels, photo(64, 48)) > 30


def test_limits_are_judged_on_the_header() -> None:
    content = file(photo(60, 40), "PNG")[:200]  # no pixel data behind it: whoever decodes says truncated
    assert reason_of(content, max_pixels=2399) == "too_many_pixels"
    assert reason_of(content, min_side=41) == "too_small"
    assert reason_of(content, max_aspect=1.4) == "aspect"
    assert reason_of(content, formats=("JPEG",)) == "format"
    assert reason_of(content, max_bytes=199) == "too_many_bytes"
    assert reason_of(b"") == "empty"
    assert reason_of(content, max_pixels=2400, min_side=40, max_aspect=1.5) == "truncated"
    assert read_header(content, CONFIG).mode == "RGB"


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"])
@pytest.mark.parametrize("share", [0.3, 0.6, 0.9])
def test_truncated_files_are_refused(kind: str, share: float) -> None:
    content = file(photo(200, 300), kind)
    assert reason_of(content[: int(len(content) * share)]) in ("truncated", "unreadable", "corrupt")


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_backends_refuse_truncated_jpegs(backend: str) -> None:
    content = file(photo(200, 300), "JPEG")
    for cut in (len(content) // 2, len(content) - 20):
        with pytest.raises(MediaError) as caught:
            decode(content[:cut], CONFIG, backend=BACKENDS[backend])
        assert caught.value.reason == "truncated"


@pytest.mark.parametrize("backend", list(BACKENDS))
@pytest.mark.parametrize("size", [(341, 256), (683, 512), (1000, 750), (860, 645), (640, 480), (100, 75), (31, 23)])
def test_dct_scaling_is_close_to_a_full_lanczos(backend: str, size: tuple[int, int]) -> None:
    content = encode_jpeg(photo(1024, 768), 92)
    full = Image.open(io.BytesIO(content)).convert("RGB").resize(size, Image.Resampling.LANCZOS)
    decoded = decode(content, CONFIG, scaled_to(*size), backend=BACKENDS[backend])
    assert decoded.decoder == backend
    assert decoded.pixels.shape == (size[1], size[0], 3)
    assert psnr(decoded.pixels, np.asarray(full)) > 30


@pytest.mark.parametrize("backend", list(BACKENDS))
def test_backends_encode_420_without_metadata(backend: str) -> None:
    pixels = photo(64, 48)
    content = BACKENDS[backend].encode(pixels, 95)
    assert simplejpeg.decode_jpeg_header(content) == (48, 64, "YCbCr", "420")
    assert b"Exif" not in content
    assert psnr(decode(content, CONFIG, backend=BACKENDS[backend]).pixels, pixels) > 32


def test_what_fits_is_kept_byte_for_byte() -> None:
    pixels = photo(64, 64)
    for kind, extension in (("JPEG", "jpg"), ("PNG", "png"), ("WEBP", "webp")):
        content = file(pixels, kind)
        for to in (None, shorter_side(64), cover(64, 64), shorter_side(100)):
            kept = encode(decode(content, CONFIG, to), CONFIG)
            assert (kept.content, kept.extension, kept.reencoded) == (content, extension, False)
        for to in (cover(64, 32), shorter_side(32)):
            assert encode(decode(content, CONFIG, to), CONFIG).reencoded
        assert encode(read(content, keep=()), CONFIG).extension == "jpg"
        assert encode(read(content + b"PK\3\4 something else behind it"), CONFIG).reencoded
    assert encode(read(file(pixels, "BMP")), CONFIG).reencoded


def test_metadata_are_not_carried_over() -> None:
    exif = Image.Exif()
    exif[0x010E] = "where I live"
    content = file(photo(64, 64), "JPEG", exif=exif, comment=b"where I live")
    assert b"where I live" not in encode(decode(content, CONFIG, shorter_side(32)), CONFIG).content


def test_a_header_read_before_is_used() -> None:
    for kind in ("JPEG", "PNG"):
        content = file(photo(64, 48), kind)
        header = read_header(content, CONFIG)
        assert decode(content, CONFIG, shorter_side(24), header).pixels.shape == (24, 32, 3)


def test_upscaling_and_odd_sizes() -> None:
    for width, height in ((1, 1), (3, 2), (17, 33), (2, 200)):
        for kind in ("JPEG", "PNG"):
            content = file(np.full((height, width, 3), 90, np.uint8), kind)
            assert read(content).pixels.shape == (height, width, 3)
            enlarged = read(content, cover(40, 30)).pixels
            assert enlarged.shape == (30, 40, 3)
            assert np.abs(enlarged.astype(int) - 90).max() <= 2
