"""Samples per CPU-second of readers: ours, webdataset, LitData, MosaicML streaming; and what a large set costs ours.

    python benchmarks/data_read.py --json data_read.json      (--quick: fewer samples)

All read the same samples (jpg, txt, json) from local disk, each from its own format, webdataset from our very tars, in
one process without workers. Every reader has a process of its own in every interleaved round: a pass to warm up, then
passes that take two CPU-seconds; the best round counts. Ours reads in full random order, LitData and MosaicML in
theirs, webdataset with its shuffle buffer, which is less random. `bytes` are members as they are stored; `decoded` adds
pixels (ours by its own decoder, webdataset by `decode("rgb8")`, the others by Pillow), text and parsed JSON.

The rivals get virtual environments of their own, made on the first run (--venvs). One that does not install is left
out, which is said.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from runs import write_record

ROOT = Path(__file__).resolve().parents[1]
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreamline"
READERS = ROOT / "benchmarks" / "readers.py"
RIVALS = {  # what their environments need; another torch would be a large build for GPUs
    "webdataset": ["webdataset==1.0.2", "numpy", "pillow"],
    "litdata": ["litdata==0.2.76", "torch==2.13.0", "numpy", "pillow"],
    "mosaicml-streaming": ["mosaicml-streaming==0.13.0", "torch==2.13.0", "numpy", "pillow"],
}
SIDE, SHARD = 512, 100  # px; samples of a shard
TINY_SHARD = 10_000
UNIT = "samples per CPU-second"
CASES = ("bytes", "decoded")


def make_venv(place: Path, name: str) -> Path | None:
    """Python of a rival's environment, which is made where it is missing; None if it does not install."""
    python, stamp = place / "bin" / "python", place / ".installed"
    if not stamp.is_file():
        print(f"installing {' '.join(RIVALS[name])} into {place}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(python), "-m", "pip", "install", "--quiet"]
        if subprocess.run([*pip, *RIVALS[name]], check=False).returncode:
            print(f"{name} LEFT OUT: it does not install", flush=True)
            return None
        stamp.touch()
    return python


def make_samples(number: int, plain: Path, tars: Path) -> float:
    """The samples as single files and in our shards; returns their mean size in bytes."""
    from decode import pictures

    from dreamline.data.sample import Sample

    files = pictures(SIDE, SIDE, min(number, 300), grain=4, falloff=1.15)
    plain.mkdir()
    samples = []
    for i in range(number):
        facts = {"number": i, "licence": "CC0", "source": "noise, gradients and edges"}
        caption = f"noise, gradients and edges, picture {i}"
        samples.append(Sample(f"{i:08d}", "t2i", caption, "noise", facts, SIDE, SIDE, files[i % len(files)]))
        for name, content in samples[-1].members().items():
            (plain / f"{samples[-1].key}.{name}").write_bytes(content)
    write_set(tars, [samples[start : start + SHARD] for start in range(0, number, SHARD)])
    return sum(len(content) for sample in samples for content in sample.members().values()) / number


def write_set(folder: Path, shards: Sequence[Sequence[Any]]) -> None:
    """A data set of ours: tars, manifest, dataset.json."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from data_prep.tar import TarWriter
    from dreamline.config import digest
    from dreamline.data.manifest import MANIFEST, DatasetInfo, ShardEntry, write_info

    folder.mkdir()
    entries, writer = [], None
    for number, samples in enumerate(shards):
        name, rows = f"{number:06d}.tar", []
        with (folder / name).open("wb") as stream:
            tar = TarWriter(stream)
            for sample in samples:
                rows.append({"key": sample.key, "shard": name, "members": tar.write(sample.key, sample.members())})
            tar.close()
        size = (folder / name).stat().st_size
        entries.append(ShardEntry(name=name, sha256=tar.sha256.hexdigest(), samples=len(samples), size=size))
        table = pa.Table.from_pylist(rows)
        writer = writer or pq.ParquetWriter(folder / MANIFEST, table.schema)
        writer.write_table(table)
    assert writer is not None
    writer.close()
    total = sum(entry.samples for entry in entries)
    info = DatasetInfo(
        kind="t2i",
        name="benchmark",
        plan="benchmark",
        fingerprint=digest([entry.sha256 for entry in entries]),
        width=SIDE,
        height=SIDE,
        shards=tuple(entries),
        num_inputs=total,
        num_samples=total,
        rejected={},
        parents={},
        statistics={},
    )
    write_info(info, folder)


def run(python: Path | str, arguments: Sequence[str], own: bool) -> str | None:
    """What a process says last, or None if it failed."""
    threads = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | threads
    environment |= {"PYTHONPATH": str(ROOT)} if own else {}
    command = [str(python), *arguments]
    done = subprocess.run(command, env=environment, stdout=subprocess.PIPE, text=True, check=False)
    return None if done.returncode else (done.stdout.strip().splitlines() or [""])[-1]


def compare(folder: Path, number: int, rounds: int, seconds: float, venvs: Path) -> list[dict[str, Any]]:
    """Rows: ours against each rival that installs."""
    plain, tars = folder / "plain", folder / "tars"
    mean = make_samples(number, plain, tars)
    print(f"{number} samples of {mean / 1000:.0f} kB in shards of {SHARD}", flush=True)
    places: dict[str, tuple[Path | str, Path]] = {"ours": (sys.executable, tars)}
    for name in RIVALS:
        python = make_venv(venvs / f"data_read-{RIVALS[name][0].replace('==', '-')}", name)
        place = tars if name == "webdataset" else folder / name
        if python is None:
            continue
        if name != "webdataset" and run(python, [str(READERS), "write", name, str(plain), str(place)], False) is None:
            print(f"{name} LEFT OUT: it cannot write its format here", flush=True)
            continue
        places[name] = (python, place)
    timed = [(name, case) for case in CASES for name in places]
    timed += [("webdataset", "bytes-sequential"), ("ours", "bytes-unverified")]
    best: dict[tuple[str, str], float] = {}
    first = 0.0
    for turn in range(rounds):
        for name, case in timed:
            if name not in places:
                continue
            python, place = places[name]
            told = run(python, [str(READERS), "read", name, str(place), case, str(seconds)], name == "ours")
            if told is None:
                raise SystemExit(f"{name} failed on {case}; see above")
            found = json.loads(told)
            if found["samples"] != number:
                raise SystemExit(f"{name} gave {found['samples']} samples of {number}; nothing is compared")
            speed = 1 / found["cpu_s"]
            if (name, case, turn) == ("ours", "bytes", 0):
                first = 1 / found["first_s"]  # hashes every shard, and warms up
            best[name, case] = max(best.get((name, case), 0), speed)
            print(f"round {turn + 1}: {name:20} {case:18} {speed:9.0f} {UNIT}", flush=True)
    rows = []
    for case in CASES:
        rows += [row(f"{case}: {name}", best["ours", case], best[name, case]) for name in places if name != "ours"]
    if "webdataset" in places:
        theirs = best["webdataset", "bytes"]
        rows.append(
            row("bytes: webdataset without shuffling", best["ours", "bytes"], best["webdataset", "bytes-sequential"])
        )
        rows.append(row("bytes, ours with verify off: webdataset", best["ours", "bytes-unverified"], theirs))
        rows.append(row("bytes, ours in the pass that verifies and warms up: webdataset", first, theirs))
    return rows


def row(what: str, ours: float, theirs: float, unit: str = UNIT) -> dict[str, Any]:
    return {
        "what": what,
        "ours": round(ours, 2),
        "theirs": round(theirs, 2),
        "ratio": round(ours / theirs, 2),
        "unit": unit,
    }


def scale(folder: Path, sizes: Sequence[int], rounds: int) -> list[dict[str, Any]]:
    """Rows: CPU time per sample and memory of ours as the data set grows, against the smallest.

    The sizes take turns, and the fastest round of each counts.
    """
    places = {size: folder / f"tiny-{size}" for size in sizes}
    for size, place in places.items():
        if run(sys.executable, [__file__, "--role", "tiny", str(place), str(size)], True) is None:
            raise SystemExit(f"{size} tiny samples could not be written; see above")
    measured: dict[int, list[dict[str, float]]] = {size: [] for size in sizes}
    for turn in range(rounds):
        for size, place in places.items():
            told = run(sys.executable, [__file__, "--role", "cost", str(place)], True)
            if told is None:
                raise SystemExit(f"{size} tiny samples failed; see above")
            measured[size].append(json.loads(told))
            print(f"round {turn + 1}: {size:9} samples: {measured[size][-1]}", flush=True)
    found = [min(measured[size], key=lambda one: one["us_per_sample"]) for size in sizes]
    units = {
        "us_per_sample": ("cost", "microseconds of CPU per sample, full random order"),
        "own_mb": ("memory", "MB of the process's own after all samples were read"),
        "mapped_mb": ("mapped index", "MB that all processes share and the kernel may drop"),
    }
    return [
        row(f"{title}: {size} samples, ours; {sizes[0]} samples, ours", one[key], found[0][key], unit)
        for key, (title, unit) in units.items()
        for size, one in zip(sizes, found, strict=True)
    ]


def tiny(place: Path, number: int) -> None:
    """Write very small samples; the pictures are no pictures."""
    from dreamline.data.index import open_index
    from dreamline.data.sample import MAGIC, Sample

    def shard(start: int) -> list[Sample]:
        end = min(start + TINY_SHARD, number)
        return [Sample(f"{i:08d}", "t2i", f"text {i}", "", {}, 1, 1, MAGIC["jpg"]) for i in range(start, end)]

    class Shards(Sequence[Any]):  # one at a time
        def __len__(self) -> int:
            return -(-number // TINY_SHARD)

        def __getitem__(self, i: Any) -> Any:
            if i >= len(self):
                raise IndexError(i)
            return shard(i * TINY_SHARD)

    write_set(place, Shards())
    open_index(place, place.parent / "cache")  # derives it, which takes memory of its own


def cost(place: Path) -> None:
    """Read every sample of a set in full random order and say what that took."""
    import readers

    read = readers.read_ours(place, True, False)
    before = memory()
    told = readers.passes(read, 2.0)
    after = memory()
    found = {"us_per_sample": told["cpu_s"] * 1e6, "own_mb": after["RssAnon"], "peak_mb": after["VmHWM"]}
    print(json.dumps({**found, "mapped_mb": after["RssFile"] - before["RssFile"]}))


def memory() -> dict[str, float]:
    """MB of this process: own, mapped files, peak of both."""
    lines = Path("/proc/self/status").read_text().splitlines()
    values = {line.split(":")[0]: line.split()[1] for line in lines if line.startswith(("RssAnon", "RssFile", "VmHWM"))}
    return {name: int(value) / 1024 for name, value in values.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shows that it runs; too few samples for a figure")
    parser.add_argument("--samples", type=int, help="of the comparison; default: 4800")
    parser.add_argument("--rounds", type=int, help="how often each reader and size runs; default: 2")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--venvs", type=Path, default=CACHE, help="folder of the rivals' environments")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)  # what a process of this benchmark does
    arguments = parser.parse_args()
    if arguments.role:
        role, place, *rest = arguments.role
        {"tiny": tiny, "cost": cost}[role](Path(place), *map(int, rest))
        return
    quick = arguments.quick
    with tempfile.TemporaryDirectory(prefix="data_read-") as name:
        number, rounds, seconds = (200, 1, 0.2) if quick else (4800, 2, 2.0)
        rounds = arguments.rounds or rounds
        rows = compare(Path(name), arguments.samples or number, rounds, seconds, arguments.venvs)
        rows += scale(Path(name), [1000, 10_000] if quick else [10_000, 100_000, 1_000_000], rounds)
    for one in rows:
        figures = f"ours {one['ours']:10.2f}   theirs {one['theirs']:10.2f}   {one['ratio']:6.2f}x"
        print(f"{one['what']:64} {figures}   {one['unit']}")
    write_record(arguments.json, "data_read", rows)


if __name__ == "__main__":
    main()
