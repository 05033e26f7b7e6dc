"""Damaged, hostile and odd files, all made here, each with a name; and a program that decodes them under limits.

`python hostile_files.py BYTES` decodes them in BYTES of address space and prints one JSON line per file (name, outcome:
`decoded` or a reason, detail, CPU seconds) and at last the peak of memory.
"""

from __future__ import annotations

import io
import json
import resource
import struct
import sys
import time
import zlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image, ImageCms

FORMATS = {
    "jpeg": ("JPEG", {"quality": 90}),
    "progressive": ("JPEG", {"progressive": True}),
    "grey": ("JPEG", {}),
    "cmyk": ("JPEG", {}),
    "png": ("PNG", {}),
    "palette": ("PNG", {}),
    "webp": ("WEBP", {}),
    "lossless": ("WEBP", {"lossless": True}),
    "gif": ("GIF", {}),
    "bmp": ("BMP", {}),
    "tiff": ("TIFF", {}),
    "lzw": ("TIFF", {"compression": "tiff_lzw"}),
    "avif": ("AVIF", {}),
}
MODES = {"grey": "L", "cmyk": "CMYK", "palette": "P"}


def sound_file(name: str, size: tuple[int, int] = (120, 80), **options: object) -> bytes:
    rng = np.random.default_rng(5)
    small = Image.fromarray(rng.integers(0, 256, (6, 9, 3)).astype(np.uint8))
    image = small.resize(size, Image.Resampling.BICUBIC).convert(MODES.get(name, "RGB"))
    exif = Image.Exif()
    exif[0x0112] = 6
    kind, own = FORMATS[name]
    extra = {} if kind in ("BMP", "GIF") else {"exif": exif}
    if kind in ("JPEG", "PNG", "WEBP") and name not in ("grey", "cmyk"):
        extra["icc_profile"] = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    target = io.BytesIO()
    image.save(target, kind, **own, **extra, **options)
    return target.getvalue()


def damaged_files() -> Iterator[tuple[str, bytes]]:
    """Truncations, flipped bits, overwritten headers, removed and doubled blocks of every format."""
    rng = np.random.default_rng(11)
    for name in FORMATS:
        content = sound_file(name)
        for share in (0.02, 0.1, 0.35, 0.7, 0.97):
            yield f"{name}-cut-{share}", content[: int(len(content) * share)]
        for i in range(12):
            flipped = bytearray(content)
            # Half of them only in the first 600 bytes, where the headers are.
            for at in rng.integers(4, min(len(content), 600 if i % 2 else len(content)), 1 + i):
                flipped[at] ^= 1 << rng.integers(8)
            yield f"{name}-flip-{i}", bytes(flipped)
        for i in range(4):
            start = int(rng.integers(8, len(content) - 40))
            noise = rng.integers(0, 256, 40).astype(np.uint8).tobytes()
            yield f"{name}-noise-{i}", content[:start] + noise + content[start + 40 :]
            yield f"{name}-ones-{i}", content[:start] + b"\xff" * 40 + content[start + 40 :]
        middle = len(content) // 2
        yield f"{name}-hole", content[: middle - 50] + content[middle:]
        yield f"{name}-twice", content + content
        yield f"{name}-zeros", content[:middle] + bytes(len(content) - middle)


def chunk(name: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))


def png(width: int, height: int, *chunks: bytes, depth: int = 8, colour: int = 2, data: bytes | None = None) -> bytes:
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0))
    body = zlib.compress(bytes((3 * width + 1) * height)) if data is None else data
    return b"\x89PNG\r\n\x1a\n" + head + b"".join(chunks) + chunk(b"IDAT", body) + chunk(b"IEND", b"")


def tiff(*entries: tuple[int, int, int, int], following: int = 0) -> bytes:
    body = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + body + struct.pack("<I", following)


def hostile_files() -> Iterator[tuple[str, bytes]]:
    """Made to hang, to fill the memory, or to be taken for something else."""
    zeros = zlib.compress(bytes(200_000_000), 9)
    yield "png-bomb", png(12000, 12000, colour=0, data=zeros)
    yield "png-bomb-within-pixels", png(8000, 8000, data=zeros)
    yield "png-16-bit-bomb", png(8000, 8000, depth=16, colour=6, data=zeros)
    yield "png-announced-huge", png(2**31 - 1, 2**31 - 1, data=b"")
    yield "png-data-too-short", png(8000, 8000, data=zlib.compress(b"\0" * 100))
    yield "png-zero-size", png(0, 10, data=b"")
    yield "png-text-bomb", png(8, 8, chunk(b"zTXt", b"a\0\0" + zeros))
    yield "png-text-bombs", png(8, 8, *[chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(1_000_000)))] * 200)
    yield "png-itxt-bomb", png(8, 8, chunk(b"iTXt", b"a\0\1\0\0\0" + zeros))
    yield "png-profile-bomb", png(8, 8, chunk(b"iCCP", b"a\0\0" + zeros))
    yield "png-exif-loop", png(8, 8, chunk(b"eXIf", tiff((0x8769, 4, 1, 8), (0x0112, 3, 2**31, 8), following=8)))
    yield "png-many-chunks", png(8, 8, *[chunk(b"teSt", b"")] * 300_000)
    yield "png-many-text-chunks", png(8, 8, *[chunk(b"tEXt", b"k%d\0v" % i) for i in range(100_000)])
    yield "png-palette-missing", png(8, 8, colour=3)
    yield "png-frames-announced", png(8, 8, chunk(b"acTL", struct.pack(">II", 2**31, 0)))
    yield "png-html-inside", png(8, 8, chunk(b"tEXt", b"a\0<script>alert(1)</script>"))
    yield "png-one-row", png(60_000_000, 1, data=zeros)

    jpeg = sound_file("jpeg")
    size_at = jpeg.index(b"\xff\xc0") + 5
    for height, width in ((65500, 65500), (65535, 1), (0, 120), (80, 0), (8000, 8000), (160, 240)):
        yield (
            f"jpeg-announced-{width}x{height}",
            jpeg[:size_at] + struct.pack(">HH", height, width) + jpeg[size_at + 4 :],
        )
    progressive = sound_file("progressive", (4000, 4000))
    scan = progressive.rindex(b"\xff\xda")
    yield "jpeg-scans", progressive[:-2] + progressive[scan : scan + 300] * 20_000 + b"\xff\xd9"
    yield "jpeg-scans-sequential", jpeg[:-2] + jpeg[jpeg.index(b"\xff\xda") : -2] * 3000 + b"\xff\xd9"
    yield "jpeg-second-size", jpeg[: size_at - 5] + jpeg[size_at - 5 : size_at + 12] * 2 + jpeg[size_at + 12 :]
    yield "jpeg-many-segments", jpeg[:2] + b"\xff\xe5\0\2" * 1_000_000 + jpeg[2:]
    yield "jpeg-many-profiles", jpeg[:2] + (b"\xff\xe2\x40\0ICC_PROFILE\0\1\1" + bytes(16368)) * 1500 + jpeg[2:]
    yield "jpeg-fill-bytes", jpeg[:2] + b"\xff" * 20_000_000 + jpeg[3:]
    yield "jpeg-restarts", jpeg[:-2] + b"\xff\xd0\xff\xd1" * 1_000_000 + b"\xff\xd9"
    yield "jpeg-empty-scan", jpeg[: jpeg.index(b"\xff\xda") + 14] + b"\xff\xd9"
    yield "jpeg-no-tables", jpeg[:2] + jpeg[size_at - 5 : size_at + 12] + jpeg[jpeg.index(b"\xff\xda") :]
    yield "jpeg-twelve-bits", jpeg[: size_at - 1] + b"\x0c" + jpeg[size_at:]
    yield "jpeg-zip-behind", jpeg + b"PK\3\4" + bytes(1000)
    yield "jpeg-start-only", b"\xff\xd8\xff"

    riff = sound_file("webp")
    lossy = riff[riff.index(b"VP8 ") :]
    canvas = b"VP8X" + struct.pack("<I", 10) + b"\2\0\0\0" + b"\xff\x3f\0" * 2
    for name, body in (("canvas", canvas), ("canvas-still", canvas + lossy)):
        yield f"webp-{name}", b"RIFF" + struct.pack("<I", len(body) + 4) + b"WEBP" + body
    frame = struct.pack("<3s3s3s3s3sB", *[bytes(3)] * 2, b"\x77\0\0", b"\x4f\0\0", bytes(3), 0) + lossy
    frames = canvas[:-6] + b"\x77\0\0\x4f\0\0" + b"ANIM" + struct.pack("<I", 6) + bytes(6)
    frames += (b"ANMF" + struct.pack("<I", len(frame)) + frame) * 5000
    yield "webp-frames", b"RIFF" + struct.pack("<I", len(frames) + 4) + b"WEBP" + frames
    yield "webp-announced-longer", riff[:4] + b"\xff\xff\xff\x7f" + riff[8:]

    gif = sound_file("gif")
    first = gif[13 + 768 : -1]
    yield "gif-announced-huge", gif[:6] + b"\xff\xff\xff\xff" + gif[10:]
    yield "gif-frame-outside", gif[:-1] + first.replace(b"," + bytes(4), b",\xff\xff\xff\xff", 1) + b";"
    yield "gif-first-frame-outside", gif[:781] + first.replace(b"," + bytes(4), b",\xff\xff\xff\xff", 1) + b";"
    yield "gif-many-frames", gif[:-1] + (b",\0\0\0\0\1\0\1\0\0\2\2D\1\0") * 300_000 + b";"
    yield "gif-many-extensions", gif[:781] + b"!\xfe\1a\0" * 1_000_000 + gif[781:]
    yield "gif-no-frame", gif[:781] + b";"
    yield "gif-zero-size", gif[:6] + bytes(4) + gif[10:]

    bmp = sound_file("bmp")
    for width, height in ((2**31 - 1, 2**31 - 1), (8000, 8000), (0, 0), (-5, 7), (8000, -8000)):
        yield f"bmp-announced-{width}x{height}", bmp[:18] + struct.pack("<ii", width, height) + bmp[26:]
    yield "bmp-palette", bmp[:28] + b"\10\0" + bmp[30:46] + b"\xff\xff\xff\x7f" + bmp[50:]

    geometry = [(256, 4, 1, 8000), (257, 4, 1, 8000), (258, 3, 1, 8), (259, 3, 1, 1), (262, 3, 1, 1)]
    yield (
        "tiff-strips",
        tiff(*geometry, (273, 4, 10_000_000, 8), (278, 4, 1, 1), (279, 4, 10_000_000, 8)) + bytes(40_000_000),
    )
    yield "tiff-directory-loop", tiff(*geometry, (273, 4, 1, 8), (279, 4, 1, 64_000_000), following=8)
    yield "tiff-no-data", tiff(*geometry, (273, 4, 1, 8), (279, 4, 1, 64_000_000))
    yield "tiff-no-size", tiff((258, 3, 1, 8))
    yield "tiff-exif-loop", tiff(*geometry, (273, 4, 1, 8), (0x8769, 4, 1, 8), (0x8825, 4, 1, 8))
    for compression in (2, 3, 4, 5, 6, 7, 8, 32773, 34661, 34712, 50000, 50001):
        entries = [*geometry[:3], (259, 3, 1, compression), geometry[4], (273, 4, 1, 100), (279, 4, 1, 5000)]
        yield f"tiff-compression-{compression}", tiff(*entries) + bytes(range(256)) * 20
    yield "tiff-samples", tiff(*geometry, (277, 3, 1, 65535), (273, 4, 1, 8), (279, 4, 1, 10))
    yield "tiff-tiles", tiff(*geometry, (322, 4, 1, 1), (323, 4, 1, 1), (324, 4, 1, 8), (325, 4, 1, 1))

    avif = sound_file("avif")
    at = avif.index(b"ispe") + 8
    for size in (1, 16384, 65535, 2**31 - 1):
        yield f"avif-announced-{size}", avif[:at] + struct.pack(">II", size, size) + avif[at + 8 :]

    for name, content in {
        "empty": b"",
        "one-byte": b"\xff",
        "html": b"<!DOCTYPE html><html><body>404 Not Found</body></html>",
        "json": b'{"error": "gone"}',
        "svg": b'<svg xmlns="http://www.w3.org/2000/svg"><image href="file:///etc/passwd"/></svg>',
        "postscript": b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n(/tmp/x) (w) file\n",
        "pdf": b"%PDF-1.7\n" + bytes(500),
        "zip": b"PK\3\4" + bytes(500),
        "gzip": b"\x1f\x8b\10" + bytes(500),
        "heic": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(500),
        "jpeg-xl": b"\xff\x0a" + bytes(500),
        "jpeg-2000": b"\0\0\0\x0cjP  \r\n\x87\n" + bytes(500),
        "icon": b"\0\0\1\0\1\0" + bytes(500),
        "mp4": b"\0\0\0\x18ftypisom" + bytes(500),
        "text": b"just text",
        "zeros": bytes(5000),
        "ones": b"\xff" * 5000,
        "noise": np.random.default_rng(0).integers(0, 256, 5000).astype(np.uint8).tobytes(),
        "html-behind-jpeg-magic": b"\xff\xd8\xff\xe0<html>" + bytes(500),
        "html-behind-gif-magic": b"GIF89a<html><script>/*" + bytes(500),
        "bm-text": b"BMW is a maker of cars, and this is no bitmap at all. " * 9,
        "riff-wave": b"RIFF\x24\0\0\0WAVEfmt " + bytes(100),
        "big-tiff": b"II+\0\10\0\0\0\x10\0\0\0\0\0\0\0" + bytes(100),
    }.items():
        yield name, content


def main() -> None:
    from dreamline.media.config import DecodeConfig
    from dreamline.media.decode import decode, encode
    from dreamline.media.errors import MediaError
    from dreamline.media.geometry import shorter_side

    address_space = int(sys.argv[1])
    resource.setrlimit(resource.RLIMIT_AS, (address_space, address_space))
    config = DecodeConfig(animated="first")
    for source in (damaged_files, hostile_files):
        for name, content in source():
            start = time.process_time()
            outcome, detail = "decoded", ""
            try:
                encode(decode(content, config, shorter_side(64)), config)
            except MediaError as error:
                outcome, detail = error.reason, error.detail
            line = {"name": name, "outcome": outcome, "detail": detail, "seconds": time.process_time() - start}
            print(json.dumps(line), flush=True)
    print(json.dumps({"peak_bytes": peak_bytes()}))


def peak_bytes() -> int:
    """Of this program alone: `ru_maxrss` starts at the peak of the process that started it."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main()
