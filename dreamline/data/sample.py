"""`Sample`: the keys of one WebDataset record, the contract between those who write shards and those who read."""

from __future__ import annotations

import io
import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image

Kind = Literal["t2i", "edit"]
Pixels = npt.NDArray[np.uint8]


MAGIC = {"png": b"\x89PNG\r\n\x1a\n", "jpg": b"\xff\xd8\xff", "webp": b"RIFF"}  # first bytes by extension


@dataclass(frozen=True)
class Sample:
    """One image with its caption, or one edit triplet.

    In a shard: `<key>.png .txt .json` for "t2i", `<key>.source.png .target.png .instruction.txt .json` for "edit", and
    `.mask.png` where an edit has one. Pictures may also be `.jpg` or `.webp`.
    """

    key: str  # unique in its data set; no dots, they end a key in a WebDataset
    kind: Kind
    text: str  # caption or instruction
    label: str  # caption category or edit type
    facts: Mapping[str, Any]  # what else is known, plain JSON; of drawn scenes the ground truth
    width: int  # px, of the image and of the source
    height: int
    image: bytes  # a file: the image, or the target of the edit
    source: bytes | None = None  # a file: what is edited
    mask: bytes | None = None  # PNG: white where the edit changed something

    def members(self) -> dict[str, bytes]:
        """Content by member name (what follows `<key>.`)."""
        facts = {"label": self.label, "facts": self.facts, "width": self.width, "height": self.height}
        members = {"json": json.dumps(facts, sort_keys=True, separators=(",", ":")).encode()}
        if self.kind == "t2i":
            return members | {extension(self.image): self.image, "txt": self.text.encode()}
        if self.source is None:
            raise ValueError(f"sample {self.key}: an edit needs a source image")
        if self.mask is not None:
            members["mask.png"] = self.mask
        return members | {
            f"source.{extension(self.source)}": self.source,
            f"target.{extension(self.image)}": self.image,
            "instruction.txt": self.text.encode(),
        }

    @classmethod
    def from_members(cls, key: str, members: Mapping[str, bytes]) -> Sample:
        """Inverse of `members`; the kind follows from the names. Names that start with `_` are ignored.

        Raises:
            ValueError: a member is missing, unknown or not readable; names the sample.
        """
        found = {name: content for name, content in members.items() if not name.startswith("_")}
        edit = any(name.startswith("source.") for name in found)
        pictures = ("source", "target") if edit else ("",)
        names = {stem: _picture(stem, found) for stem in pictures}
        text = "instruction.txt" if edit else "txt"
        expected = {"json", text, *names.values()} | ({"mask.png"} & set(found) if edit else set())
        if set(found) != expected:
            raise ValueError(f"sample {key}: has the members {sorted(found)}, expected {sorted(expected)}")
        try:
            return cls(
                key,
                "edit" if edit else "t2i",
                text=found[text].decode(),
                image=found[names["target" if edit else ""]],
                source=found[names["source"]] if edit else None,
                mask=found.get("mask.png"),
                **json.loads(found["json"]),
            )
        except (ValueError, TypeError) as error:
            raise ValueError(f"sample {key}: cannot be read: {error}") from None


def extension(content: bytes) -> str:
    """Extension of a picture file, by its first bytes.

    Raises:
        ValueError: neither PNG, JPEG nor WebP.
    """
    for name, magic in MAGIC.items():
        if content.startswith(magic):
            return name
    raise ValueError(f"a picture that begins with {content[:8]!r} is neither PNG, JPEG nor WebP")


def _picture(stem: str, members: Mapping[str, bytes]) -> str:
    """The member that holds a picture: the one that is there, or the name that is missing."""
    names = [f"{stem}.{name}".lstrip(".") for name in MAGIC]
    return next((name for name in names if name in members), names[0])


def encode_png(pixels: Pixels) -> bytes:
    """PNG file of an RGB picture, uint8 [H, W, 3]; equal pixels give equal bytes."""
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, format="PNG", compress_level=6)
    return buffer.getvalue()


def decode_png(content: bytes) -> Pixels:
    """RGB picture of an image file, uint8 [H, W, 3].

    Raises:
        OSError: not an image, or cut short.
    """
    with Image.open(io.BytesIO(content)) as image:
        return np.asarray(image.convert("RGB"))
