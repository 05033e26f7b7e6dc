"""The encoded samples of a job's input, wherever they come from."""

from __future__ import annotations

import json
from pathlib import Path

import torch

from dreamline.config import ConfigError, Job
from dreamline.data.features import Features, FeatureSet
from dreamline.data.manifest import DATASET
from dreamline.encoding.settings import check_encoders
from dreamline.storage import is_remote


def open_features(job: Job, name: str, device: torch.device | str = "cpu") -> Features:
    """Input `name` of a job: encoded samples; or a data set, which is encoded on the fly by the input `frozen`.

    Where encoded samples are not complete, the input `<name>_data` is the data set that they are of; what is missing is
    encoded on the fly.

    Raises:
        ConfigError: an input is missing, or not what it should be; or samples were encoded by other encoders than the
            input `frozen`.
    """
    from dreamline.encoding.on_the_fly import OnTheFly

    job.input(name)  # says so where it is missing
    path, data = job.inputs[name].path, job.inputs.get(f"{name}_data")
    if not is_encoded_set(path):
        if data is not None:
            raise ConfigError(f"inputs.{name}: {path} is not encoded; then inputs.{name}_data has no use, leave it out")
        return OnTheFly(path, job.input("frozen"), device=device)
    if data is None:
        features = FeatureSet(path)
        if "frozen" in job.inputs:
            check_encoders(features.info.key, job.input("frozen"), path)
        return features
    return OnTheFly(data.path, job.input("frozen"), cache=path, device=device)


def is_encoded_set(path: str) -> bool:
    """Whether a folder holds encoded samples."""
    if is_remote(path):
        return False
    try:
        return "text_dim" in json.loads((Path(path) / DATASET).read_text())
    except (OSError, ValueError):
        return False
