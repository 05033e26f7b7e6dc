"""conf/<preset>/pipeline.yaml: what the flow does with the stages, and where it runs them."""

from __future__ import annotations

from typing import Any

from pydantic import Field

from dreamline.config import Config


class ClusterConfig(Config):
    """Ray: a head of our own on this machine, or a cluster that is there already."""

    address: str | None = Field(None, description="dashboard of a remote cluster, http://host:8265; None starts a head")
    cpus: int = Field(2, ge=1, description="cores that a local head may use")
    gpus: int = Field(0, ge=0, description="devices that a local head may use")
    object_store_mb: int = Field(256, ge=80, description="shared memory of a local head, MiB")
    root: str | None = Field(
        None, description="folder of this repository on the nodes of a remote cluster; default: here"
    )
    python: str = Field("python", description="interpreter on the nodes of a remote cluster")
    lost_after_s: float = Field(900, gt=0, description="seconds a remote cluster may be out of reach before giving up")
    quiet_s: float = Field(90, ge=0, description="seconds a job without a record must be silent before it is repeated")


class PipelineConfig(Config):
    """The pipeline of one preset."""

    evaluate: dict[str, dict[str, Any]] = Field(
        {},
        description="checkpoints to evaluate, each with what differs from the `stage` part of evaluation.yaml; "
        "`<stage>-<label>` evaluates a checkpoint once more, in another way",
    )
    plant_hacking: bool = Field(
        False, description="also fine-tune without guards towards a reward trained too briefly, to show what happens"
    )
    tracking_uri: str | None = Field(None, description="MLflow address; sqlite in the workspace by default")
    prefect_url: str | None = Field(None, description="API of a Prefect server; None starts one for the run")
    floors: dict[str, float] = Field({}, description="least scores of a student that becomes champion")
    concurrency: int = Field(1, ge=1, description="jobs at a time; they share the cluster")
    offline: bool = Field(True, description="no stage may reach for a model hub")
    cluster: ClusterConfig = ClusterConfig()
