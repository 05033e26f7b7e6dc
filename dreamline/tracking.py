"""MLflow: runs, data sets, model versions and aliases. The only file that imports mlflow, and only inside functions.

A model version points to a checkpoint: a small JSON file with its path and the sha256 of every file. Weights are never
copied into the tracking server. Every call may be repeated: the identity of a run and of a version is the job's digest.
"""

from __future__ import annotations

import fcntl
import functools
import json
import logging
import os
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from dreamline.config import Job, digest
from dreamline.storage import hash_folder

MODEL = "dreamline"  # the one registered model; every checkpoint of every stage is a version of it
POINTER = "pointer.json"
DIGEST_TAG = "digest"
DATA_INPUTS = ("t2i", "edit")
_BATCH = 500  # the server takes at most 1000 metrics, and 100 parameters or tags, in one call


@dataclass(frozen=True)
class Run:
    """One MLflow run that is being written."""

    uri: str
    run_id: str
    artifact_uri: str
    tags: Mapping[str, str]


def start_run(uri: str, experiment: str, name: str, tags: Mapping[str, str], params: Mapping[str, Any]) -> Run:
    """Open the run of a job, or open it again when the job resumes.

    Args:
        uri: MLflow address, `sqlite:////path/mlflow.db` or `http(s)://...`.
        experiment: made when it is not there.
        name: shown in the user interface.
        tags: `tags["digest"]` identifies the job; a run of the experiment with the same digest is continued.
        params: settings; nested ones are flattened to dotted names.
    """
    from mlflow.entities import Param

    if DIGEST_TAG not in tags:
        raise ValueError(f"tags must hold {DIGEST_TAG!r}, the digest of the job (there are: {sorted(tags)})")
    client = _client(uri)
    experiment_id = _experiment(uri, experiment)
    found = client.search_runs([experiment_id], f"tags.{DIGEST_TAG} = '{tags[DIGEST_TAG]}'", max_results=1)
    if found:
        info = found[0].info
        client.update_run(info.run_id, status="RUNNING")
    else:
        info = client.create_run(experiment_id, tags=dict(tags), run_name=name).info
        texts = [Param(key, str(value)[:6000]) for key, value in _flat(params)]
        for start in range(0, len(texts), 100):
            client.log_batch(info.run_id, params=texts[start : start + 100])
    return Run(uri, info.run_id, info.artifact_uri, dict(tags))


def end_run(run: Run, failed: bool = False) -> None:
    """Close a run."""
    _client(run.uri).set_terminated(run.run_id, "FAILED" if failed else "FINISHED")


def log_metrics(run: Run, metrics: Mapping[str, float], step: int) -> None:
    """Log all values of one step in one call."""
    from mlflow.entities import Metric

    now = int(time.time() * 1000)
    values = [Metric(name, float(value), now, step) for name, value in metrics.items()]
    for start in range(0, len(values), _BATCH):
        _client(run.uri).log_batch(run.run_id, metrics=values[start : start + _BATCH])


def log_datasets(run: Run, job: Job) -> None:
    """Name the data sets among a job's inputs as inputs of the run, with the digests of the jobs that made them."""
    from mlflow.entities import Dataset, DatasetInput, InputTag

    tag = InputTag("mlflow.data.context", "training")
    datasets = [
        Dataset(name=name, digest=item.digest, source_type="local", source=json.dumps({"uri": item.path}))
        for name, item in job.inputs.items()
        if name in DATA_INPUTS
    ]
    _client(run.uri).log_inputs(run.run_id, [DatasetInput(dataset, [tag]) for dataset in datasets])


def log_dataset(run: Run, name: str, fingerprint: str, source: str, profile: Mapping[str, Any]) -> None:
    """Name a data set as an input of a run.

    Args:
        run: the run.
        name: of the data set.
        fingerprint: identity of its content; its first 36 characters are the digest that MLflow shows.
        source: path or address of what describes it.
        profile: numbers about it, plain JSON.
    """
    from mlflow.entities import Dataset, DatasetInput, InputTag

    kind = "s3" if source.startswith("s3://") else "local"
    entity = Dataset(
        name=name,
        digest=fingerprint[:36],
        source_type=kind,
        source=json.dumps({"uri": source}),
        profile=json.dumps(profile, sort_keys=True),
    )
    _client(run.uri).log_inputs(run.run_id, [DatasetInput(entity, [InputTag("mlflow.data.context", "training")])])


def register(uri: str, checkpoint_dir: str | Path, stage: str, job: Job, run: Run) -> str:
    """Make a checkpoint a version of the registered model, and the alias `stage` point to it.

    The version is tagged with the run's tags, the preset, the fingerprint of the data, the version that training
    started from, and the path. A second call with the same job and the same files returns the version that is there.

    Args:
        uri: MLflow address.
        checkpoint_dir: a diffusers folder; stays where it is.
        stage: name of the stage, also the alias of its newest version.
        job: what made the checkpoint.
        run: the run that made it; holds the pointer.

    Returns:
        The version, a decimal number as text.

    Raises:
        FileNotFoundError: the folder is missing or empty.
    """
    client = _client(uri)
    files = hash_folder(checkpoint_dir)
    path = str(Path(checkpoint_dir).resolve())
    if not files:
        raise FileNotFoundError(f"{path}: no files there, nothing to register")
    with _locked(uri):
        _ensure_model(uri)
        identity = {DIGEST_TAG: job.digest(), "content": digest(files)}
        version = _find(uri, identity)
        if version is None:
            pointer = {"path": path, "stage": stage, **identity, "files": files}
            client.log_dict(run.run_id, pointer, f"checkpoint/{POINTER}")
            made = client.create_model_version(
                MODEL,
                source=f"{run.artifact_uri}/checkpoint",
                run_id=run.run_id,
                tags={**run.tags, **_lineage(uri, job), **identity, "stage": stage, "path": path},
            )
            version = str(made.version)
        else:
            client.set_model_version_tag(MODEL, version, "path", path)  # the same files may have moved
        client.set_registered_model_alias(MODEL, stage, version)
    return version


def find_version(uri: str, job_digest: str) -> str | None:
    """Newest version made by the job with this digest, or None."""
    return _find(uri, {DIGEST_TAG: job_digest})


def tag_version(uri: str, version: str, tags: Mapping[str, str]) -> None:
    """Set tags of a version; tags that are there already are replaced."""
    for key, value in tags.items():
        _client(uri).set_model_version_tag(MODEL, version, key, value)


def set_alias(uri: str, alias: str, version: str) -> None:
    """Point an alias to a version."""
    _client(uri).set_registered_model_alias(MODEL, alias, version)


def _lineage(uri: str, job: Job) -> dict[str, str]:
    data = {name: item.digest for name, item in job.inputs.items() if name in DATA_INPUTS}
    tags = {"preset": job.preset, "data_fingerprint": digest(data)}
    for name, tag in (("init_from", "parent_version"), ("teacher", "teacher_version")):
        parent = _find(uri, {DIGEST_TAG: job.inputs[name].digest}) if name in job.inputs else None
        if parent is not None:
            tags[tag] = parent
    return tags


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def _find(uri: str, tags: Mapping[str, str]) -> str | None:
    query = " and ".join([f"name = '{MODEL}'", *(f"tags.`{key}` = '{value}'" for key, value in tags.items())])
    versions = [int(found.version) for found in _client(uri).search_model_versions(query)]
    return str(max(versions)) if versions else None


def _ensure_model(uri: str) -> None:
    from mlflow.exceptions import MlflowException

    try:
        _client(uri).create_registered_model(MODEL, description="DreamLite checkpoints of every stage")
    except MlflowException as error:
        if error.error_code != "RESOURCE_ALREADY_EXISTS":
            raise


def _experiment(uri: str, name: str) -> str:
    from mlflow.exceptions import MlflowException

    client = _client(uri)
    found = client.get_experiment_by_name(name)
    if found is None:
        folder = _database(uri)
        place = (folder.parent / "mlflow-artifacts" / name).as_uri() if folder else None
        try:
            return str(client.create_experiment(name, artifact_location=place))
        except MlflowException as error:  # another process was faster
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
            found = client.get_experiment_by_name(name)
    return str(found.experiment_id)


def _database(uri: str) -> Path | None:
    """File of a sqlite address, else None."""
    return Path(uri.removeprefix("sqlite:///")).resolve() if uri.startswith("sqlite:///") else None


@contextmanager
def _locked(uri: str) -> Iterator[None]:
    """One process at a time on a sqlite database; a server looks after itself."""
    database = _database(uri)
    if database is None:
        yield
        return
    database.parent.mkdir(parents=True, exist_ok=True)
    with database.with_suffix(".lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


@functools.cache
def _client(uri: str) -> Any:
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    from mlflow import MlflowClient

    logging.getLogger("mlflow.store.db.utils").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with _locked(uri):  # tables are made by the first client; two at once would collide
        client = MlflowClient(tracking_uri=uri, registry_uri=uri)
        client.search_experiments(max_results=1)
    return client
