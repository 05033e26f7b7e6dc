"""What encoding a data set will take and save, measured on a few of its samples."""

from __future__ import annotations

import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from data_prep.encode_run import Encoding
from data_prep.encoding import EncodeTask, load_encoders, open_reader
from data_prep.features import table_of, write_features
from dreamline.data.mapped import map_tensors
from dreamline.data.order import Indices
from dreamline.encoding.encoders import Size

SAMPLES = 16  # of each kind that are encoded to measure
ONCE_PER_IMAGE = ("image_text", "null_text")  # tensors that an edit shares with others of the same source
BYTE_UNITS = ("B", "kB", "MB", "GB", "TB")
FLOP_UNITS = ("FLOP", "kFLOP", "MFLOP", "GFLOP", "TFLOP", "PFLOP", "EFLOP")


@dataclass(frozen=True)
class Measured:
    """One kind of samples, per sample."""

    size: Size  # of the measured ones, px
    num: int
    num_images: int  # different source pictures among them; 1 for generation
    num_bytes: dict[str, float]  # by tensor, but those shared by edits of an image: per different source picture
    flops: dict[str, float]  # of "vae" and "text_encoder"
    seconds: float


def plan_encoding(encoding: Encoding, epochs: int, num: int = SAMPLES) -> dict[str, Any]:
    """Sizes by tensor, compute that `epochs` passes over the data save, and time. Nothing is written.

    Latents and the work of the VAE follow the pixels of each size; texts are taken to be like the measured ones.
    """
    tasks = encoding.tasks
    kinds = sorted({task.kind for task in tasks}, reverse=True)
    measured = {kind: _measure([task for task in tasks if task.kind == kind], num) for kind in kinds}
    num_sources = _different_sources(encoding, [task for task in tasks if task.kind == "edit"])
    num_edits = sum(len(task.rows) for task in tasks if task.kind == "edit")
    images = num_edits if num_sources is None else num_sources
    sizes: dict[str, float] = {}
    unshared = 0.0
    for task in tasks:
        found, share = measured[task.kind], images / num_edits if task.kind == "edit" else 1.0
        for name, per_sample in _bytes(found, task):
            once = task.kind == "edit" and name in ONCE_PER_IMAGE
            sizes[name] = sizes.get(name, 0.0) + per_sample * (share if once else 1.0)
            unshared += per_sample * (2 if name == "image_text" else 1)  # in front of the prompt and of the empty one
    flops: dict[str, float] = {}
    for task in tasks:
        found = measured[task.kind]
        for name, value in found.flops.items():
            flops[name] = flops.get(name, 0.0) + value * (_pixels(task.size, found.size) if name == "vae" else 1) * len(
                task.rows
            )
    missing = [task for task in tasks if not task.is_done(verify=False)]
    seconds = sum(measured[task.kind].seconds * len(task.rows) for task in missing)
    free = shutil.disk_usage(next(path for path in encoding.folder.absolute().parents if path.is_dir())).free
    num_samples = sum(len(task.rows) for task in tasks)
    return {
        "data": encoding.index.folder,
        "output": str(encoding.folder),
        "samples": num_samples,
        "encoded_already": num_samples - sum(len(task.rows) for task in missing),
        "files": len(tasks),
        "buckets": {f"{width}x{height}": number for (width, height), number in _by_size(tasks).items()},
        "edits": num_edits,
        "different_sources": num_sources,
        "bytes": {name: round(value) for name, value in sizes.items()},
        "bytes_total": round(sum(sizes.values())),
        "bytes_saved_by_sharing": round(unshared - sum(sizes.values())),
        "bytes_free": free,
        "epochs": epochs,
        "encoder_passes_saved": {
            "vae": (num_samples + num_edits) * (epochs - 1),
            "text_encoder": (num_samples + images) * (epochs - 1),
        },
        "flops_saved": {name: value * (epochs - 1) for name, value in flops.items()},
        "flops_once": flops,
        "measured_on": {kind: found.num for kind, found in measured.items()},
        "ms_per_sample": {kind: round(1000 * found.seconds, 3) for kind, found in measured.items()},
        "seconds": seconds / encoding.request.num_workers,
        "workers": encoding.request.num_workers,
    }


def plan_lines(plan: dict[str, Any]) -> Iterator[str]:
    """The plan for people."""
    samples, epochs = plan["samples"], plan["epochs"]
    yield f"{plan['data']}: {samples} samples, {plan['encoded_already']} encoded already, {plan['files']} files"
    yield "sizes: " + ", ".join(f"{number} of {name}" for name, number in plan["buckets"].items())
    if plan["edits"]:
        known = plan["different_sources"]
        sources = "not known, taken as all different" if known is None else f"{known} different"
        yield f"edits: {plan['edits']}, source pictures {sources}"
    for name, number in plan["bytes"].items():
        yield f"  {name:<16}{amount(number, BYTE_UNITS):>12}{number / samples:>14.0f} bytes per sample"
    total, saved = amount(plan["bytes_total"], BYTE_UNITS), amount(plan["bytes_saved_by_sharing"], BYTE_UNITS)
    yield f"  {'total':<16}{total:>12}   (free there: {amount(plan['bytes_free'], BYTE_UNITS)})"
    if plan["edits"]:
        yield f"states of source pictures are stored once per picture: {saved} less"
    for name, number in plan["flops_saved"].items():
        passes = plan["encoder_passes_saved"][name]
        yield f"{epochs} epochs save {amount(number, FLOP_UNITS)} of the {name}, {passes} passes"
    rates = ", ".join(f"{value} ms per {kind} sample" for kind, value in plan["ms_per_sample"].items())
    yield f"time: about {plan['seconds']:.0f} s with {plan['workers']} workers ({rates}, measured on this machine)"
    yield f"output: {plan['output']}"


def amount(number: float, units: tuple[str, ...]) -> str:
    """A number in the unit that leaves at most three digits before the point."""
    for unit in units:
        if number < 1000 or unit == units[-1]:
            return f"{number:.0f} {unit}" if unit == units[0] else f"{number:.2f} {unit}"
        number /= 1000
    raise ValueError("no units")


def _measure(tasks: list[EncodeTask], num: int) -> Measured:
    """Encode a few samples of the most frequent size, write them to a scratch folder, and look at what it took."""
    by_size = _by_size(tasks)
    size = max(by_size, key=lambda size: by_size[size])
    group = [task for task in tasks if task.size == size]
    rows: Indices = np.concatenate([task.rows for task in group])
    rows = rows[np.linspace(0, len(rows) - 1, min(num, len(rows))).astype(np.int64)]
    task = EncodeTask(group[0].dataset, rows, group[0].kind, size, "sample", group[0].target)
    encoders, settings = load_encoders(task.target.frozen), task.target.settings
    index, reader = open_reader(task.dataset)
    batch = min(settings.batch_size, len(rows))
    with FlopCounterMode(display=False) as everything:  # it also warms up
        encoded = encoders.encode(reader.read(rows), size, batch)
    picture = torch.zeros(size[1], size[0], 3, dtype=torch.uint8).numpy()
    with FlopCounterMode(display=False) as one:
        encoders.latents([picture])
    vae = float(one.get_total_flops()) * (2 if task.kind == "edit" else 1)
    with TemporaryDirectory() as scratch:
        started = time.perf_counter()
        encoded = encoders.encode(reader.read(rows), size, batch)
        write_features(encoded, table_of(encoded, index, rows), Path(scratch), "sample", "", settings)
        seconds = (time.perf_counter() - started) / len(rows)
        tensors = map_tensors(Path(scratch) / "sample.safetensors")
        beside = sum((Path(scratch) / f"sample.{end}").stat().st_size for end in ("rows", "arrow", "json"))
    num_images = max(1, len(encoded.images))
    per = {name: num_images if name in ONCE_PER_IMAGE and task.kind == "edit" else len(rows) for name in tensors}
    sizes = {
        name: value.numel() * value.element_size() / per[name] for name, value in tensors.items() if value.ndim > 1
    }
    sizes["names and tables"] = beside / len(rows)
    text = max(0.0, everything.get_total_flops() / len(rows) - vae)
    return Measured(size, len(rows), num_images, sizes, {"vae": vae, "text_encoder": text}, seconds)


def _bytes(found: Measured, task: EncodeTask) -> Iterator[tuple[str, float]]:
    """Bytes of a task by tensor."""
    for name, value in found.num_bytes.items():
        if task.kind == "t2i" and name == "null_text":
            yield name, value * found.num  # one for the whole file
        else:
            factor = _pixels(task.size, found.size) if name.endswith("latents") else 1
            yield name, value * factor * len(task.rows)


def _pixels(size: Size, other: Size) -> float:
    return size[0] * size[1] / (other[0] * other[1])


def _by_size(tasks: list[EncodeTask]) -> dict[Size, int]:
    found: dict[Size, int] = {}
    for task in tasks:
        found[task.size] = found.get(task.size, 0) + len(task.rows)
    return found


def _different_sources(encoding: Encoding, tasks: list[EncodeTask]) -> int | None:
    """Source pictures that differ, file by file as they are stored; None where the manifest has no hashes of them."""
    import pyarrow as pa
    import pyarrow.compute as pc

    if not tasks or "members" not in encoding.index.columns:
        return 0 if not tasks else None
    total = 0
    members = encoding.index.column("members")
    for task in tasks:
        flat = members.take(pa.array(task.rows)).combine_chunks().flatten()
        hashes = flat.field("sha256").filter(pc.starts_with(flat.field("name"), "source."))
        if len(hashes) != len(task.rows) or hashes.null_count:
            return None
        total += pc.count_distinct(hashes).as_py()
    return total
