"""Writing encoded shards: safetensors, a table, then the sidecar that marks both as finished (see `FeatureSet`)."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from dreamline.data.encoded import FeatureShard, FeaturesInfo, write_features_info
from dreamline.data.index import SampleIndex
from dreamline.data.manifest import fingerprint
from dreamline.data.order import Indices
from dreamline.data.sample import Kind
from dreamline.encoding.encoders import Encoded, Size
from dreamline.encoding.settings import EncodeSettings
from dreamline.storage import sha256, write_bytes

if TYPE_CHECKING:
    import pyarrow as pa


def write_features(
    encoded: Encoded, table: pa.Table, folder: Path, stem: str, plan: str, settings: EncodeSettings
) -> None:
    """Publish `<stem>.safetensors`, `<stem>.rows` and `<stem>.arrow`, then `<stem>.json`.

    `table` has a column "row", the samples' rows in the data set, and any others.

    Raises:
        ValueError: a value is not finite or too large for its type; names the sample.
    """
    import pyarrow as pa
    from safetensors.torch import save

    keys = [sample.key for sample in encoded.samples]
    latent_dtype, text_dtype = (getattr(torch, name) for name in (settings.latent_dtype, settings.text_dtype))
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
    prompts = [sample.text for sample in encoded.samples]
    rows = {"rows": torch.tensor(table["row"].to_pylist()), **_packed("key", keys), **_packed("prompt", prompts)}
    write_bytes(folder / f"{stem}.rows", save(rows))
    sink = pa.BufferOutputStream()
    with pa.ipc.new_file(sink, table.schema) as file:
        file.write_table(table)
    write_bytes(folder / f"{stem}.arrow", sink.getvalue().to_pybytes())
    record = {
        "plan": plan,
        "sha256": hashlib.sha256(content).hexdigest(),
        "size": len(content),
        "latent_shape": list(encoded.latents.shape[1:]),
        "text_dim": encoded.texts[0].shape[1],
        "keys": keys,
        "prompts": prompts,
        "labels": [sample.label for sample in encoded.samples],
        "facts": [sample.facts for sample in encoded.samples],
    }
    write_bytes(folder / f"{stem}.json", (json.dumps(record, sort_keys=True) + "\n").encode())


def table_of(encoded: Encoded, index: SampleIndex, rows: Indices) -> pa.Table:
    """What is known of some samples: their rows, texts, and all columns of the data set's manifest."""
    import pyarrow as pa

    samples = encoded.samples
    columns: dict[str, Any] = {
        "row": pa.array(rows, pa.int64()),
        "key": [sample.key for sample in samples],
        "text": [sample.text for sample in samples],
        "label": [sample.label for sample in samples],
    }
    whole = {name.partition(".")[0] for name in index.columns if "." in name}  # maps; their values are columns, too
    for name in index.columns:
        if name not in {*columns, *whole, "members", "shard"}:
            columns[name] = index.column(name).take(pa.array(rows)).combine_chunks()
    return pa.table(columns)


def is_encoded(folder: Path, stem: str, plan: str, verify: bool = True) -> bool:
    """Whether the shard is there from an earlier attempt, complete and, if `verify`, undamaged."""
    sidecar, path = folder / f"{stem}.json", folder / f"{stem}.safetensors"
    if not all(path.with_suffix(suffix).is_file() for suffix in (".json", ".safetensors", ".rows", ".arrow")):
        return False
    try:
        record = json.loads(sidecar.read_text())
        made, size, expected = record["plan"], record["size"], record["sha256"]
    except (ValueError, KeyError):  # damaged
        return False
    if made != plan or path.stat().st_size != size:
        return False
    return not verify or bool(sha256(path) == expected)


def shard_entry(folder: Path, stem: str, kind: Kind, size: Size) -> FeatureShard:
    """What dataset.json says of a finished shard."""
    sidecar = folder / f"{stem}.json"
    record = json.loads(sidecar.read_text())
    return FeatureShard(
        name=f"{stem}.safetensors",
        sha256=record["sha256"],
        samples=len(record["keys"]),
        size=record["size"],
        records=sha256(sidecar),
        kind=kind,
        width=size[0],
        height=size[1],
        latent_shape=record["latent_shape"],
        rows=sha256(folder / f"{stem}.rows"),
        table=sha256(folder / f"{stem}.arrow"),
    )


def content_fingerprint(entries: Sequence[FeatureShard]) -> str:
    """Names the very bytes that were written."""
    return fingerprint((entry.name, entry.sha256, entry.records or "") for entry in entries)


def publish_features(
    folder: Path,
    entries: Sequence[FeatureShard],
    *,
    name: str,
    num_rows: int,
    plan: str,
    text_dim: int,
    parents: Mapping[str, str],
    key: Mapping[str, Any],
    settings: EncodeSettings,
    names: tuple[str, str],
) -> FeaturesInfo:
    """List finished shards of an encoded data set in dataset.json, in this order.

    `names` are its fingerprint and the key of its order; `num_rows` counts the samples of the data set.
    """
    info = FeaturesInfo(
        name=name,
        plan=plan,
        fingerprint=names[0],
        order_key=names[1],
        text_dim=text_dim,
        shards=tuple(entries),
        num_samples=sum(entry.samples for entry in entries),
        num_rows=num_rows,
        key=dict(key),
        settings=settings.model_dump(mode="json"),
        parents=dict(parents),
    )
    write_features_info(info, folder)
    return info


def _packed(name: str, texts: Sequence[str]) -> dict[str, Tensor]:
    """`<name>s`, UTF-8 end to end, and `<name>_offsets` [n + 1]."""
    encoded = [text.encode() for text in texts]
    content = torch.from_numpy(np.frombuffer(b"".join(encoded), np.uint8).copy())
    return {f"{name}s": content, f"{name}_offsets": torch.tensor([0, *map(len, encoded)]).cumsum(0)}


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
