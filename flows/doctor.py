"""A quick look at this machine: what a local run needs, and the cure for what is missing."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import psutil

from dreamline.config import ConfigError
from dreamline.result import ROOT
from flows.cluster import ClusterError, short_folder
from flows.stages import presets, resolve

PACKAGES = ("torch", "deepspeed", "ray", "prefect", "mlflow", "diffusers", "transformers", "webdataset", "pyarrow")
ROOMS = ("dreamline", "data_prep", "training", "rl", "distill", "evaluation", "flows")
MIN_MEMORY_GIB = 4
MIN_DISK_GIB = 3


@dataclass(frozen=True)
class Check:
    """One thing that was looked at."""

    name: str
    ok: bool
    found: str
    cure: str = ""

    def as_dict(self) -> dict[str, object]:
        """For JSON."""
        return asdict(self)


def examine(workspace: Path) -> list[Check]:
    """All checks, in about a second."""
    return list(_checks(workspace))


def _checks(workspace: Path) -> Iterator[Check]:
    version = ".".join(map(str, sys.version_info[:3]))
    yield Check("python", (3, 11) <= sys.version_info < (3, 13), version, "use Python 3.11 or 3.12")
    for name in PACKAGES:
        found = _version(name)
        yield Check(name, bool(found), found or "not installed", "run `make setup`")
    for name in ROOMS:
        spec = importlib.util.find_spec(name)
        place = Path(spec.origin).parent if spec and spec.origin else None
        mine = place is not None and place.parent == ROOT
        if not mine:
            yield Check(f"package {name}", False, str(place), f"another package is called {name}; uninstall it")
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    yield Check("cores", True, f"{cores} (the demo's times are for 2)")
    free_gib = psutil.virtual_memory().available / 2**30
    yield Check("memory", free_gib >= MIN_MEMORY_GIB, f"{free_gib:.1f} GiB free", f"free {MIN_MEMORY_GIB} GiB")
    disk_gib = shutil.disk_usage(_existing(workspace)).free / 2**30
    yield Check(
        "disk", disk_gib >= MIN_DISK_GIB, f"{disk_gib:.1f} GiB free", f"free {MIN_DISK_GIB} GiB, or --workspace"
    )
    try:
        short_folder().rmdir()
        yield Check("temporary folder", True, "short and writable")
    except (ClusterError, OSError) as error:
        yield Check("temporary folder", False, str(error), "set TMPDIR=/tmp")
    for preset in presets():
        try:
            yield Check(f"conf/{preset}", True, f"{len(resolve(preset, workspace).stages)} jobs")
        except ConfigError as error:
            yield Check(f"conf/{preset}", False, str(error), "correct the file")


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return ""


def _existing(path: Path) -> Path:
    path = path.absolute()
    return path if path.exists() else _existing(path.parent)
