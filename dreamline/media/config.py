"""What a picture may be, and by which rules it is read."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, model_validator

from dreamline.config import Config

Format = Literal["JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"]


class DecodeConfig(Config):
    """Limits that are checked on the header, before any pixel is decoded, and the rules of decoding."""

    formats: tuple[Format, ...] = Field(
        ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF"), description="accepted formats, told by content"
    )
    max_bytes: int = Field(64 * 2**20, ge=1, description="bytes of the file")
    max_pixels: int = Field(
        2**26,
        ge=1,
        le=178_956_970,  # above this Pillow refuses by itself
        description="width x height; decoding takes up to 16 bytes of memory per pixel",
    )
    min_side: int = Field(1, ge=1, description="pixels of the shorter side")
    max_aspect: float = Field(100.0, ge=1, description="longer side over shorter side")
    max_scans: int = Field(128, ge=1, description="scans of a progressive JPEG; usual files have about 10")
    animated: Literal["reject", "first"] = Field("reject", description="of several frames: refuse, or take the first")
    background: tuple[int, int, int] = Field((255, 255, 255), description="sRGB colour put under transparency")
    keep: tuple[Literal["JPEG", "PNG", "WEBP"], ...] = Field(
        ("JPEG", "PNG", "WEBP"), description="formats whose files are kept byte for byte where nothing has to change"
    )
    quality: int = Field(95, ge=1, le=100, description="JPEG quality of re-encoded pictures, 4:2:0")


class BucketConfig(Config):
    """Shapes that training batches have, and what may be done to a picture to give it one of them."""

    pixels: int = Field(1024 * 1024, ge=1, description="most pixels of a bucket")
    multiple: int = Field(64, ge=1, description="both sides are multiples of it: VAE 8 x patch 2 x 4")
    max_aspect: float = Field(2.0, ge=1, description="longest side over shortest side of a bucket")
    max_crop: float = Field(0.2, ge=0, lt=1, description="largest share of the picture that may be cropped away")
    max_upscale: float = Field(1.0, gt=0, description="largest factor by which a picture may be enlarged")

    @model_validator(mode="after")
    def _holds_a_square(self) -> BucketConfig:
        if self.pixels < self.multiple**2:
            raise ValueError(
                f"no bucket of {self.pixels} pixels has sides that are multiples of {self.multiple}; "
                f"raise pixels to {self.multiple**2} or more, or lower multiple"
            )
        return self
