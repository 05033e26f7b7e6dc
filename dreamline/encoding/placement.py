"""Which bucket each sample of a data set is encoded in."""

from __future__ import annotations

import numpy as np

from dreamline.config import ConfigError
from dreamline.data.index import SampleIndex
from dreamline.data.order import Indices
from dreamline.encoding.encoders import Size
from dreamline.encoding.settings import EncodeSettings
from dreamline.media.buckets import choose_bucket
from dreamline.media.errors import MediaError


def place(index: SampleIndex, settings: EncodeSettings, factor: int) -> tuple[tuple[Size, ...], Indices]:
    """The sizes that pictures are encoded in, sorted, and [N] the number of each sample's.

    `factor` is that of the VAE: pixels per latent, on a side.

    Raises:
        ConfigError: the sizes of the pictures are not known, or one fits no bucket or the VAE; names the sample.
    """
    missing = {"width", "height"} - set(index.columns)
    columns = [] if missing else [index.column(name) for name in ("width", "height")]
    if missing or any(column.null_count for column in columns):
        raise ConfigError(
            f"{index.folder}: sizes of pictures are not known (columns width and height); "
            f"run `dreamline data index {index.folder}` again"
        )
    own = np.stack([np.asarray(column, dtype=np.int64) for column in columns], axis=1)
    found, first, inverse = np.unique(own, axis=0, return_index=True, return_inverse=True)
    chosen = []
    for (width, height), row in zip(found.tolist(), first.tolist(), strict=True):
        size = _choose((width, height), settings, index, row)
        if size[0] % factor or size[1] % factor:
            raise ConfigError(
                f"{index.folder}: sample {index.key(row)} of {size[0]} x {size[1]} px: sides must be multiples of "
                f"{factor}; set fit (buckets to scale and crop into), or build the data set with buckets"
            )
        chosen.append(size)
    sizes = tuple(sorted(set(chosen)))
    numbers = np.array([sizes.index(size) for size in chosen], dtype=np.int64)
    return sizes, numbers[inverse.reshape(-1)]


def edits(index: SampleIndex) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """[N] whether each sample is an edit."""
    layouts = np.array([layout.kind == "edit" for layout in index.places.layouts], dtype=np.bool_)
    return layouts[index.places.layout] if len(index) else np.zeros(0, dtype=np.bool_)


def _choose(size: Size, settings: EncodeSettings, index: SampleIndex, row: int) -> Size:
    if settings.fit is None:
        return size
    try:
        return choose_bucket(*size, settings.fit).bucket
    except MediaError as error:
        raise ConfigError(
            f"{index.folder}: sample {index.key(row)} fits no bucket: {error}; "
            "change fit.max_crop, fit.max_upscale or fit.pixels, or leave it out by building the data set"
        ) from None
