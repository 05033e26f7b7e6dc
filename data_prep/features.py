"""Writing encoded shards: a safetensors file, then its sidecar that marks it as finished (layout: see `FeatureSet`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from dreamline.data.manifest import DatasetInfo, FeaturesInfo, ShardEntry, fingerprint, write_info
from dreamline.data.sample import Sample
from dreamline.storage import sha256, write_bytes


@dataclass(frozen=True)
class Encoded:
    """The encoded samples of one shard. D is the width of the text encoder."""

    samples: Sequence[Sample]
    latents: Tensor  # [N, C, h, w]
    texts: Sequence[Tensor]  # N of [L_i, D]; for edits what follows the image
    nulls: Sequence[Tensor]  # the empty prompt [L, D]: one for generation; for edits one per different image
    source_latents: Tensor | None = None  # [N, C, h, w], edits only, as all below
    images: Sequence[Tensor] = ()  # [L, D] per different source image
    image_index: Sequence[int] = ()  # N: which of `images` is the sample's


def write_features(
    encoded: Encoded, folder: Path, stem: str, plan: str, latent_dtype: torch.dtype, text_dtype: torch.dtype
) -> None:
    """Publish `<stem>.safetensors`, then `<stem>.json`.

    Raises:
        ValueError: a value is not finite or too large for its type; names the sample.
    """
    from safetensors.torch import save

    keys = [sample.key for sample in encoded.samples]
    tensors = {"latents": _cast(encoded.latents, latent_dtype, keys)}
    tensors |= _ragged("text", encoded.texts, text_dtype, keys)
    owners = keys
    if encoded.source_latents is not None:
        tensors["source_latents"] = _cast(encoded.source_latents, latent_dtype, keys)
        tensors["image_index"] = torch.tensor(encoded.image_index, dtype=torch.int64)
        owners = [keys[encoded.image_index.index(i)] for i in range(len(encoded.images))]
        tensors |= _ragged("image", encoded.images, text_dtype, owners)
    tensors |= _ragged("null", encoded.nulls, text_dtype, owners)
    content = save(tensors)
    write_bytes(folder / f"{stem}.safetensors", content)
    record = {
        "plan": plan,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "latent_shape": list(encoded.latents.shape[1:]),
        "text_dim": encoded.texts[0].shape[1],
        "keys": keys,
        "prompts": [sample.text for sample in encoded.samples],
        "labels": [sample.label for sample in encoded.samples],
        "facts": [sample.facts for sample in encoded.samples],
    }
    write_bytes(folder / f"{stem}.json", (json.dumps(record, sort_keys=True) + "\n").encode())


def is_encoded(folder: Path, stem: str, plan: str) -> bool:
    """Whether the shard is there from an earlier attempt, complete and undamaged."""
    sidecar, path = folder / f"{stem}.json", folder / f"{stem}.safetensors"
    if not sidecar.is_file() or not path.is_file():
        return False
    record = json.loads(sidecar.read_text())
    return bool(record["plan"] == plan and sha256(path) == record["sha256"])


def publish_features(
    dataset: DatasetInfo, folder: Path, stems: Sequence[str], plan: str, parents: Mapping[str, str]
) -> FeaturesInfo:
    """List the finished shards of an encoded data set in dataset.json, in the order of `stems`."""
    entries, shapes = [], set()
    for stem in stems:
        sidecar = folder / f"{stem}.json"
        record = json.loads(sidecar.read_text())
        shapes.add((tuple(record["latent_shape"]), record["text_dim"]))
        entries.append(
            ShardEntry(
                name=f"{stem}.safetensors",
                sha256=record["sha256"],
                samples=len(record["keys"]),
                size=record["size"],
                records=sha256(sidecar),
            )
        )
    ((latent_shape, text_dim),) = shapes
    info = FeaturesInfo(
        kind=dataset.kind,
        name=dataset.name,
        plan=plan,
        fingerprint=fingerprint((entry.name, entry.sha256, entry.records or "") for entry in entries),
        width=dataset.width,
        height=dataset.height,
        shards=tuple(entries),
        num_samples=sum(entry.samples for entry in entries),
        latent_shape=latent_shape,
        text_dim=text_dim,
        parents=dict(parents),
    )
    write_info(info, folder)
    return info


def _ragged(name: str, pieces: Sequence[Tensor], dtype: torch.dtype, owners: Sequence[str]) -> dict[str, Tensor]:
    """`<name>_text` [sum L, D] (for the prompts themselves: `text`) and `<name>_offsets` [n + 1]."""
    lengths = torch.tensor([0, *(len(piece) for piece in pieces)])
    repeated = [owner for owner, piece in zip(owners, pieces, strict=False) for _ in range(len(piece))]
    states = _cast(torch.cat(list(pieces)), dtype, repeated)
    return {"text" if name == "text" else f"{name}_text": states, f"{name}_offsets": lengths.cumsum(0)}


def _cast(values: Tensor, dtype: torch.dtype, owners: Sequence[str]) -> Tensor:
    """To a storage type, contiguous; `owners` are the keys of the rows, for the error."""
    cast = values.detach().cpu().to(dtype).contiguous()
    finite = torch.isfinite(cast).flatten(1).all(dim=1)
    if not bool(finite.all()):
        raise ValueError(
            f"sample {owners[int(finite.logical_not().nonzero()[0])]}: encoded values are not finite as {dtype}; "
            "use bfloat16 or float32 (stage.text_dtype, stage.latent_dtype), or check the encoders"
        )
    return cast
