"""A list of URLs to WebDataset shards, per CPU-second: ours, img2dataset, and a plain Pillow loop.

    python benchmarks/data_build.py --json data_build.json      (--quick: fewer pictures)

All three fetch the same files from one server on this machine (a process of its own that does not count) and write
tar files with jpg, txt and json; shorter side 256 px, JPEG quality 95, 4:2:0. What they wrote is compared. CPU time is
user and system time of the whole process tree. Every builder runs at two sizes in several interleaved rounds; of each
size the fastest round counts, and the slope between the sizes is the figure, so that start-up cancels.

img2dataset's pins conflict with ours: it gets a virtual environment of its own, made on the first run (--venv).
"""

from __future__ import annotations

import argparse
import csv
import functools
import hashlib
import io
import json
import os
import shutil
import signal
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

from runs import write_record

ROOT = Path(__file__).resolve().parents[1]
IMG2DATASET = "1.47.0"
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "dreamline"
SIDE, QUALITY, THREADS = 256, 95, 16
PICTURE = (1024, 768)
EXPECTED = (341, 256)
LIMIT = 600  # s for one run
UNIT = "images per CPU-second"


@dataclass(frozen=True)
class Run:
    """What one run took."""

    cpu: float  # s
    wall: float  # s


@dataclass(frozen=True)
class Output:
    """What has to be equal for all builders."""

    captions: tuple[str, ...]  # sorted
    sizes: frozenset[tuple[int, int]]
    sampling: frozenset[int]
    tables: frozenset[str]  # of quantisation, which tell the quality


def ours(listing: Path, target: Path) -> list[str]:
    """The command line of this project: one worker. A private host is allowed, and limits per host are off."""
    config = {
        "name": "benchmark",
        "sources": [{"kind": "url_list", "path": str(listing), "columns": {"image": "url", "text": "caption"}}],
        "output": str(target),
        "workers": 1,
        "fetch_threads": THREADS,
        "fetch": {"allow_private": True, "host_rate": 0, "host_concurrency": THREADS},
        "image": {"shorter_side": SIDE, "decode": {"quality": QUALITY}},
    }
    file = target.with_suffix(".yaml")
    file.write_text(json.dumps(config))  # JSON is YAML
    return [sys.executable, "-m", "flows.cli", "data", "build", str(file), "--json"]


def img2dataset(tool: Path, listing: Path, target: Path) -> list[str]:
    """Its command line: one process with as many threads as ours."""
    options = {
        "url_list": listing,
        "input_format": "csv",
        "url_col": "url",
        "caption_col": "caption",
        "output_format": "webdataset",
        "output_folder": target,
        "processes_count": 1,
        "thread_count": THREADS,
        "image_size": SIDE,
        "resize_mode": "keep_ratio",
        "encode_format": "jpg",
        "encode_quality": QUALITY,
        "incremental_mode": "incremental",
        "enable_wandb": False,
    }
    return [str(tool), *(f"--{name}={value}" for name, value in options.items())]


def pillow(listing: Path, target: Path) -> list[str]:
    """The loop that everybody writes first."""
    return [sys.executable, __file__, "--role", "pillow", str(listing), str(target)]


def pillow_loop(listing: Path, target: Path) -> None:
    """urllib, Pillow LANCZOS, tarfile; one picture after the other."""
    from PIL import Image

    target.mkdir()
    with listing.open(newline="") as file, tarfile.open(target / "00000.tar", "w") as tar:
        for number, row in enumerate(csv.DictReader(file)):
            with urllib.request.urlopen(row["url"], timeout=30) as answer:
                content = answer.read()
            image = Image.open(io.BytesIO(content)).convert("RGB")
            factor = SIDE / min(image.size)
            size = (round(image.width * factor), round(image.height * factor))
            small = io.BytesIO()
            image.resize(size, Image.Resampling.LANCZOS).save(small, "JPEG", quality=QUALITY, subsampling="4:2:0")
            facts = {"url": row["url"], "width": size[0], "height": size[1]}
            facts |= {"original_width": image.width, "original_height": image.height}
            facts |= {"sha256": hashlib.sha256(content).hexdigest()}
            members = {"jpg": small.getvalue(), "txt": row["caption"].encode(), "json": json.dumps(facts).encode()}
            for name, value in members.items():
                info = tarfile.TarInfo(f"{number:09d}.{name}")
                info.size = len(value)
                tar.addfile(info, io.BytesIO(value))


class Server(ThreadingHTTPServer):
    """Serves the files of a folder; takes all connections that come at once."""

    daemon_threads = True
    request_queue_size = 128


class Handler(SimpleHTTPRequestHandler):
    """Keeps connections open, and quiet."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def log_message(self, *_: Any) -> None:
        """Nothing."""


def serve(folder: Path) -> None:
    """Serve a folder on a free port of this machine, whose number goes to stdout."""
    server = Server(("127.0.0.1", 0), functools.partial(Handler, directory=str(folder)))
    print(server.server_port, flush=True)
    server.serve_forever()


@contextmanager
def served(folder: Path) -> Iterator[str]:
    """A server in a process of its own; yields its address."""
    command = [sys.executable, __file__, "--role", "serve", str(folder)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout is not None
        yield f"http://127.0.0.1:{int(process.stdout.readline())}"
    finally:
        process.kill()
        process.wait()


def make_venv(place: Path) -> Path:
    """The img2dataset command in a virtual environment, which is made where it is missing."""
    stamp = place / f".img2dataset-{IMG2DATASET}"
    if not stamp.is_file():
        print(f"installing img2dataset {IMG2DATASET} into {place}", flush=True)
        subprocess.run([sys.executable, "-m", "venv", str(place)], check=True)
        pip = [str(place / "bin" / "python"), "-m", "pip", "install", "--quiet"]
        subprocess.run([*pip, f"img2dataset=={IMG2DATASET}"], check=True)
        stamp.touch()
    return place / "bin" / "img2dataset"


def make_pictures(folder: Path, number: int, falloff: float) -> int:
    """Files `00000.jpg` and so on, alike to pictures of the web; returns their mean size in bytes."""
    from decode import pictures

    files = pictures(*PICTURE, number, grain=2, falloff=falloff)
    for i, content in enumerate(files):
        (folder / f"{i:05d}.jpg").write_bytes(content)
    return sum(map(len, files)) // number


def write_list(path: Path, address: str, number: int) -> None:
    """URLs and captions of the first pictures."""
    with path.open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["url", "caption"])
        rows.writerows([f"{address}/{i:05d}.jpg", caption(i)] for i in range(number))


def caption(number: int) -> str:
    """Of a picture; no two are the same."""
    return f"noise, gradients and edges, picture {number}"


def run_once(command: list[str], folder: Path, environment: dict[str, str]) -> Run:
    """Run a builder to its end. SystemExit: it failed."""
    told, log = folder / "time.json", folder / "log.txt"
    told.unlink(missing_ok=True)
    wrapped = [sys.executable, str(ROOT / "benchmarks" / "cpu_time.py"), str(told), *command]
    with log.open("wb") as sink:
        process = subprocess.Popen(
            wrapped, stdout=sink, stderr=subprocess.STDOUT, env=environment, cwd=folder, start_new_session=True
        )
        try:
            process.wait(LIMIT)
        except BaseException as error:
            os.killpg(process.pid, signal.SIGKILL)
            process.wait()
            if isinstance(error, subprocess.TimeoutExpired):
                raise SystemExit(f"{command[0]} took more than {LIMIT} s; its last words:\n{_tail(log)}") from None
            raise
    result = json.loads(told.read_text()) if told.is_file() else {"code": process.returncode or 1}
    if result["code"]:
        raise SystemExit(f"{' '.join(command)} failed with code {result['code']}; its last words:\n{_tail(log)}")
    return Run(result["cpu_s"], result["wall_s"])


def _tail(log: Path) -> str:
    return log.read_text(errors="replace")[-3000:]


def read_output(folder: Path) -> Output:
    """What is in the tar files below a folder. SystemExit: a sample lacks a file."""
    from PIL import Image, JpegImagePlugin

    captions, sizes, sampling, tables = [], set(), set(), set()
    for shard in sorted(folder.rglob("*.tar")):
        found: dict[str, set[str]] = {}
        with tarfile.open(shard) as tar:
            for member in tar:
                key, _, name = member.name.partition(".")
                found.setdefault(key, set()).add(name)
                stream = tar.extractfile(member)
                assert stream is not None
                content = stream.read()
                if name == "txt":
                    captions.append(content.decode())
                elif name == "jpg":
                    image = Image.open(io.BytesIO(content))
                    sizes.add(image.size)
                    sampling.add(JpegImagePlugin.get_sampling(image))
                    tables.add(json.dumps(image.quantization))
        short = [key for key, names in found.items() if names != {"jpg", "txt", "json"}]
        if short:
            raise SystemExit(f"{shard}: sample {short[0]} has {sorted(found[short[0]])}, not jpg, txt and json")
    return Output(tuple(sorted(captions)), frozenset(sizes), frozenset(sampling), frozenset(tables))


def expected_output(number: int) -> Output:
    """What every builder has to write."""
    from PIL import Image

    like = io.BytesIO()
    Image.new("RGB", EXPECTED).save(like, "JPEG", quality=QUALITY, subsampling="4:2:0")
    tables = json.dumps(Image.open(like).quantization)
    captions = tuple(sorted(caption(i) for i in range(number)))
    return Output(captions, frozenset({EXPECTED}), frozenset({2}), frozenset({tables}))


def check(name: str, folder: Path, number: int) -> None:
    """Compare what a builder wrote with what it should. SystemExit: they differ."""
    got, want = read_output(folder), expected_output(number)
    if len(got.captions) != number:
        raise SystemExit(f"{name} wrote {len(got.captions)} samples, not {number}; nothing is compared")
    for field in ("captions", "sizes", "sampling", "tables"):
        if getattr(got, field) != getattr(want, field):
            few = sorted(map(str, getattr(got, field)))[:3]
            raise SystemExit(f"{name}: {field} of its {number} samples are not as asked for; such as {few}")


def measure(
    builders: dict[str, Callable[[Path, Path], list[str]]], folder: Path, address: str, sizes: list[int], rounds: int
) -> dict[str, dict[int, list[Run]]]:
    """All runs, by builder and size."""
    one_thread = {f"{name}_NUM_THREADS": "1" for name in ("OMP", "MKL", "OPENBLAS")}
    plain = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"} | one_thread
    runs: dict[str, dict[int, list[Run]]] = {name: {size: [] for size in sizes} for name in builders}
    for number in range(rounds):
        for size in sizes:
            listing = folder / f"list-{size}.csv"
            write_list(listing, address, size)
            for name, command_of in builders.items():
                target = folder / name
                shutil.rmtree(target, ignore_errors=True)
                own = {} if name == "img2dataset" else {"PYTHONPATH": str(ROOT)}
                environment = {**plain, **own, "NO_ALBUMENTATIONS_UPDATE": "1"}  # nor ask the network for a new version
                run = run_once(command_of(listing, target), folder, environment)
                check(name, target, size)
                runs[name][size].append(run)
                print(
                    f"round {number + 1}: {name:12} {size:5} images {run.cpu:7.2f} CPU-s {run.wall:7.2f} s", flush=True
                )
    return runs


def compare(runs: dict[str, dict[int, list[Run]]]) -> list[dict[str, Any]]:
    """Rows: slopes first, then one large run as a whole."""
    best = {name: {size: min(run.cpu for run in some) for size, some in by.items()} for name, by in runs.items()}
    small, large = sorted(best["ours"])
    slope = {name: (large - small) / (cpu[large] - cpu[small]) for name, cpu in best.items()}
    whole = {name: large / cpu[large] for name, cpu in best.items()}
    rows = []
    for title, figures in (("{}", slope), (f"{{}}, {large} images with start-up", whole)):
        for name in [name for name in figures if name != "ours"]:
            row = {"what": title.format(name), "ours": round(figures["ours"], 1), "theirs": round(figures[name], 1)}
            rows.append({**row, "ratio": round(figures["ours"] / figures[name], 2), "unit": UNIT})
    return rows


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shows that it runs; too few pictures for a figure")
    parser.add_argument("--rounds", type=int, help="how often each run is repeated; default: 4")
    parser.add_argument("--json", type=Path, help="where to write the result")
    parser.add_argument("--venv", type=Path, default=CACHE / f"img2dataset-{IMG2DATASET}", help="for img2dataset")
    parser.add_argument("--falloff", type=float, default=1.38, help="1.38: 200 kB; 1.15, as in decode.py: 344 kB")
    parser.add_argument("--role", nargs="+", help=argparse.SUPPRESS)  # what a process of this benchmark does
    arguments = parser.parse_args()
    if arguments.role:
        role, *paths = arguments.role
        {"serve": serve, "pillow": pillow_loop}[role](*map(Path, paths))
        return
    sizes = [40, 120] if arguments.quick else [200, 600]
    rounds = arguments.rounds or (2 if arguments.quick else 4)
    tool = make_venv(arguments.venv.resolve())
    builders = {"ours": ours, "img2dataset": functools.partial(img2dataset, tool), "pillow": pillow}
    with tempfile.TemporaryDirectory(prefix="data_build-") as name:
        pictures = Path(name) / "pictures"
        pictures.mkdir()
        mean = make_pictures(pictures, max(sizes), arguments.falloff)
        print(f"{max(sizes)} pictures of {PICTURE[0]}x{PICTURE[1]}, {mean / 1000:.0f} kB each", flush=True)
        with served(pictures) as address:
            runs = measure(builders, Path(name), address, sizes, rounds)
    rows = compare(runs)
    for row in rows:
        print(f"{row['what']:40} ours {row['ours']:7.1f}   theirs {row['theirs']:7.1f}   {row['ratio']:5.2f}x   {UNIT}")
    write_record(arguments.json, "data_build", rows)


if __name__ == "__main__":
    main()
