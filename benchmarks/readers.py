"""What benchmarks/data_read.py runs, a process per reader: `write` its format, or `read` and tell the time.

    python benchmarks/readers.py write litdata PLAIN TARGET
    python benchmarks/readers.py read litdata TARGET bytes 2

Runs in the environment of one rival, so it imports nothing but that, and of ours only for our own reader.
"""

from __future__ import annotations

import io
import json
import resource
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

BUFFER = 500  # samples that webdataset shuffles among
CHUNK = 2**26  # bytes of a chunk of LitData and of a shard of MDS
BATCH = 32  # samples that ours reads at once
MEMBERS = ("jpg", "txt", "json")

Records = Iterator[dict[str, Any]]  # content by member name


def plain(folder: Path) -> Records:
    """The samples, from the files that all formats are written from."""
    for path in sorted(folder.glob("*.jpg")):
        yield {"__key__": path.stem, **{name: path.with_suffix(f".{name}").read_bytes() for name in MEMBERS}}


def litdata_sample(path: str) -> dict[str, Any]:
    """One sample as LitData stores it."""
    place = Path(path)
    return {"key": place.stem, **{name: place.with_suffix(f".{name}").read_bytes() for name in MEMBERS}}


def write_litdata(source: Path, target: Path) -> None:
    from litdata import optimize

    files = [str(path) for path in sorted(source.glob("*.jpg"))]
    optimize(litdata_sample, files, str(target), chunk_bytes=CHUNK, num_workers=1)


def streaming() -> Any:
    """The MosaicML library, without torchvision: its build and that of torch for CPUs do not fit each other."""
    from importlib.machinery import ModuleSpec
    from importlib.util import module_from_spec

    names = ("torchvision", "torchvision.datasets", "torchvision.transforms", "torchvision.transforms.functional")
    parts = {name: module_from_spec(ModuleSpec(name, None)) for name in names}
    parts["torchvision.datasets"].VisionDataset = object  # type: ignore[attr-defined]
    parts["torchvision.transforms.functional"].to_tensor = None  # type: ignore[attr-defined]
    sys.modules.update(parts)
    import streaming

    return streaming


def write_mds(source: Path, target: Path) -> None:
    columns = {"__key__": "str", **dict.fromkeys(MEMBERS, "bytes")}
    with streaming().MDSWriter(out=str(target), columns=columns, size_limit=CHUNK) as writer:
        for record in plain(source):
            writer.write(record)


def read_webdataset(folder: Path, shuffle: bool, decoded: bool) -> Callable[[], Records]:
    import webdataset

    shards = sorted(str(path) for path in folder.glob("*.tar"))
    data = webdataset.WebDataset(shards, shardshuffle=len(shards) if shuffle else False, seed=0)
    data = data.shuffle(BUFFER) if shuffle else data
    return (data.decode("rgb8") if decoded else data).__iter__


def read_litdata(folder: Path, shuffle: bool, decoded: bool) -> Callable[[], Records]:
    from litdata import StreamingDataset

    return pictures(StreamingDataset(str(folder), shuffle=shuffle, drop_last=False).__iter__, decoded)


def read_mds(folder: Path, shuffle: bool, decoded: bool) -> Callable[[], Records]:
    data = streaming().StreamingDataset(local=str(folder), shuffle=shuffle, batch_size=1)
    return pictures(data.__iter__, decoded)


def pictures(records: Callable[[], Records], decoded: bool) -> Callable[[], Records]:
    """With Pillow, as these libraries leave it to their user."""

    def read() -> Records:
        import numpy as np
        from PIL import Image

        for record in records():
            image = np.asarray(Image.open(io.BytesIO(record["jpg"])).convert("RGB"))
            yield {"jpg": image, "txt": str(record["txt"], "utf-8"), "json": json.loads(bytes(record["json"]))}

    return read if decoded else records


def read_ours(folder: Path, shuffle: bool, decoded: bool, verify: bool = True) -> Callable[[], Records]:
    import numpy as np

    from dreamline.data.index import open_index
    from dreamline.data.order import shuffled
    from dreamline.data.shard_cache import CacheConfig
    from dreamline.data.shards import ShardReader
    from dreamline.media.config import DecodeConfig
    from dreamline.media.decode import decode

    cache = CacheConfig(folder=folder.parent / "cache")
    config, epoch = DecodeConfig(), iter(range(10**6))
    index = open_index(folder, cache.folder)
    reader, size = ShardReader(index, cache, verify), len(index)

    def read() -> Records:
        passed = next(epoch)
        for start in range(0, size, BATCH):
            rows = np.arange(start, min(start + BATCH, size))
            if shuffle:
                rows = shuffled(rows + passed * size, size, index.fingerprint, 0)
            if decoded:
                for sample in reader.read(rows):
                    yield {"jpg": decode(sample.image, config).pixels, "sample": sample}
            else:
                yield from reader.members(rows)

    return read


READERS: dict[str, Callable[[Path, bool, bool], Callable[[], Records]]] = {
    "ours": read_ours,
    "webdataset": read_webdataset,
    "litdata": read_litdata,
    "mosaicml-streaming": read_mds,
}
WRITERS: dict[str, Callable[[Path, Path], None]] = {"litdata": write_litdata, "mosaicml-streaming": write_mds}


def cpu() -> float:
    """s of this process and those that it has waited for."""
    used = [resource.getrusage(who) for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN)]
    return sum(one.ru_utime + one.ru_stime for one in used)


def passes(read: Callable[[], Records], at_least: float) -> dict[str, Any]:
    """CPU s per sample: of the first pass, which warms up, and of as many as take a time together."""
    first, number = one_pass(read)
    spent, count = 0.0, 0
    while spent < at_least:
        took, found = one_pass(read)
        if found != number:
            raise SystemExit(f"a pass of {found} samples after one of {number}")
        spent, count = spent + took, count + found
    return {"samples": number, "cpu_s": spent / count, "first_s": first / number}


def one_pass(read: Callable[[], Records]) -> tuple[float, int]:
    """CPU s, and number of samples."""
    start, count = cpu(), 0
    for record in read():
        count += len(record["jpg"]) > 0  # somebody has to look at it
    return cpu() - start, count


def main() -> None:
    role, name, place, *rest = sys.argv[1:]
    if role == "write":
        WRITERS[name](Path(place), Path(rest[0]))
        return
    what, seconds = rest[0], float(rest[1])
    words = what.split("-")
    options: dict[str, Any] = {"verify": False} if "unverified" in words else {}
    read = READERS[name](Path(place), "sequential" not in words, "decoded" in words, **options)
    print(json.dumps(passes(read, seconds)))


if __name__ == "__main__":
    main()
