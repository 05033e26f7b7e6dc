"""The stages of the pipeline, and the plan of one preset: every job resolved and checked before any of them starts."""

from __future__ import annotations

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from data_prep.config import DataJob, EncodeJob
from distill.config import DMD2Job
from dreamline.config import ConfigError, Input, Job, apply_override, build, digest, load, merge, read_yaml
from dreamline.result import ROOT, StageResult, read_result
from dreamline.storage import hash_folder
from evaluation.config import EvaluationJob
from flows.config import PipelineConfig
from rl.config import ReFLJob, RewardJob
from training.config import TrainJob

CONF = ROOT / "conf"
EVALUATION = "evaluation"


@dataclass(frozen=True)
class Stage:
    """One node of the graph: the module that runs it, its configuration and where its inputs come from."""

    name: str
    module: str
    job: type[Job]
    inputs: Mapping[str, str]  # input name: "<stage>.<output>"

    @property
    def conf(self) -> str:
        """Name of its file in conf/<preset>/."""
        return EVALUATION if self.name.startswith("eval-") else self.name


FEATURES = {"t2i": "encode.t2i", "edit": "encode.edit", "frozen": "encode.frozen"}

STAGES = (
    Stage("data", "data_prep.run", DataJob, {}),
    Stage("encode", "data_prep.encode", EncodeJob, {"t2i": "data.t2i", "edit": "data.edit"}),
    Stage("t2i", "training.run", TrainJob, FEATURES),
    Stage("edit", "training.run", TrainJob, {**FEATURES, "init_from": "t2i.checkpoint"}),
    Stage("joint", "training.run", TrainJob, {**FEATURES, "init_from": "edit.checkpoint"}),
    Stage("sft", "training.run", TrainJob, {**FEATURES, "init_from": "joint.checkpoint"}),
    Stage("reward", "rl.reward_training", RewardJob, FEATURES),
    Stage("refl", "rl.run", ReFLJob, {**FEATURES, "reward": "reward.reward", "init_from": "sft.checkpoint"}),
    Stage("hasty", "rl.reward_training", RewardJob, FEATURES),
    Stage("unguarded", "rl.run", ReFLJob, {**FEATURES, "reward": "hasty.reward", "init_from": "sft.checkpoint"}),
    Stage(
        "dmd2",
        "distill.run",
        DMD2Job,
        {**FEATURES, "reward": "reward.reward", "init_from": "refl.checkpoint", "teacher": "refl.checkpoint"},
    ),
)
CHECKPOINTS = ("t2i", "edit", "joint", "sft", "refl", "unguarded", "dmd2")  # stages that can be evaluated
STUDENT = "dmd2"
PLANTED = ("hasty", "unguarded")  # a reward that knows little, and fine-tuning towards it without guards


def evaluation_of(name: str) -> Stage:
    """The node of `pipeline.evaluate.<name>`, where the name is that of a stage, or `<stage>-<label>`."""
    return Stage(f"eval-{name}", "evaluation.run", EvaluationJob, {"checkpoint": f"{evaluated(name)}.checkpoint"})


def evaluated(name: str) -> str:
    """The stage whose checkpoint `pipeline.evaluate.<name>` looks at."""
    return name.partition("-")[0]


@dataclass(frozen=True)
class PlannedStage:
    """A stage with its resolved job."""

    name: str
    module: str
    job: Job
    sources: Mapping[str, str]

    @property
    def run_dir(self) -> Path:
        """Folder of this job, named by its digest."""
        return Path(self.job.run_dir)

    @property
    def digest(self) -> str:
        """Identity of the job."""
        return self.job.digest()

    @property
    def evaluates(self) -> str | None:
        """The stage whose checkpoint this node evaluates, if that is what it does."""
        return self.sources["checkpoint"].partition(".")[0] if self.name.startswith("eval-") else None

    def result(self) -> StageResult | None:
        """The result when the job is done: same digest, and every output still there. Only looks at files."""
        result = read_result(self.run_dir)
        if result is None or result.digest != self.digest:
            return None
        return result if all(result.output(name).exists() for name in result.outputs) else None


@dataclass(frozen=True)
class Plan:
    """Every job of one preset, in an order in which they can run."""

    preset: str
    workspace: Path
    config: PipelineConfig
    tracking_uri: str | None
    stages: Mapping[str, PlannedStage]

    @property
    def preset_dir(self) -> Path:
        """Folder that holds everything of the preset."""
        return self.workspace / self.preset

    def results(self) -> dict[str, StageResult]:
        """Results of the stages that are done."""
        found = {name: stage.result() for name, stage in self.stages.items()}
        return {name: result for name, result in found.items() if result is not None}

    def missing(self) -> list[str]:
        """Stages that are still to do."""
        return [name for name, stage in self.stages.items() if stage.result() is None]


def presets() -> list[str]:
    """Names of the presets in conf/."""
    return sorted(path.parent.name for path in CONF.glob("*/pipeline.yaml"))


def resolve(
    preset: str, workspace: str | Path = "workspace", overrides: Sequence[str] = (), tracking_uri: str | None = None
) -> Plan:
    """Resolve every job of a preset: configuration, digest and run folder. Reads files, runs nothing.

    Args:
        preset: folder in conf/.
        workspace: everything is written below it.
        overrides: dotted assignments that begin with the stage, such as `t2i.stage.steps=100`; `evaluation.` is for
            all evaluations, `eval-t2i.` for one, `pipeline.` for the flow itself.
        tracking_uri: MLflow address, before that of pipeline.yaml and sqlite in the workspace; "none" tracks nothing.

    Raises:
        ConfigError: anything that would stop the pipeline later on for a wrong or missing setting.
    """
    if preset not in presets():
        raise ConfigError(f"there is no preset {preset!r}; choose one of {', '.join(presets())} (folders of conf/)")
    root = Path(os.path.abspath(workspace))
    by_target = _split(overrides)
    config = load(PipelineConfig, CONF / preset / "pipeline.yaml", by_target.pop("pipeline", ()))
    nodes = {node.name: node for node in _nodes(config)}
    unknown = set(by_target) - set(nodes) - ({EVALUATION} if config.evaluate else set())
    if unknown:
        raise ConfigError(
            f"override of {sorted(unknown)}: no such stage; begin with one of pipeline, {', '.join(nodes)}"
        )
    address = tracking_uri or config.tracking_uri or f"sqlite:///{root / 'mlflow.db'}"
    uri = None if address == "none" else address
    stages: dict[str, PlannedStage] = {}
    for node in nodes.values():
        targets = dict.fromkeys([node.conf, node.name])  # all evaluations, then the one
        lines = [line for target in targets for line in by_target.get(target, ())]
        job = _job(node, preset, config, lines, uri, _inputs(node, stages))
        _check_room(node.name, job, config)
        run_dir = root / preset / "runs" / node.name / f"{preset}-{job.digest()}"
        job = job.model_copy(update={"run_dir": str(run_dir)})
        stages[node.name] = PlannedStage(node.name, node.module, job, node.inputs)
    return Plan(preset, root, config, uri, stages)


def _nodes(config: PipelineConfig) -> Iterable[Stage]:
    """The stages in the order of the graph, each evaluation behind its stage."""
    stages = [stage for stage in STAGES if stage.name not in PLANTED or config.plant_hacking]
    known = [stage.name for stage in stages if stage.name in CHECKPOINTS]
    wrong = sorted(name for name in config.evaluate if evaluated(name) not in known)
    if wrong:
        raise ConfigError(f"pipeline.yaml: evaluate: {wrong} have no checkpoint; choose among {', '.join(known)}")
    for stage in stages:
        yield stage
        yield from (evaluation_of(name) for name in config.evaluate if evaluated(name) == stage.name)


def _inputs(node: Stage, planned: Mapping[str, PlannedStage]) -> dict[str, Input]:
    inputs = {}
    for name, source in node.inputs.items():
        producer, _, output = source.partition(".")
        job = planned[producer].job
        inputs[name] = Input(path=str(Path(job.run_dir) / output), digest=job.digest())
    return inputs


def _job(
    node: Stage,
    preset: str,
    config: PipelineConfig,
    overrides: Sequence[str],
    tracking_uri: str | None,
    inputs: dict[str, Input],
) -> Job:
    path = CONF / preset / f"{node.conf}.yaml"
    values = read_yaml(path)
    if node.conf == EVALUATION:
        special = config.evaluate[node.name.removeprefix("eval-")]
        values = merge(values, {"stage": {**special, "name": node.name}})
    for item in overrides:
        apply_override(values, item)
    values = merge(values, {"runtime": {"tracking_uri": tracking_uri}})
    job = build(node.job, {**values, "preset": preset, "run_dir": "", "inputs": inputs}, str(path))
    if isinstance(job, EncodeJob):
        encoders = _encoders(job, Path(config.cluster.root or ROOT))
        job = job.model_copy(update={"inputs": {**job.inputs, "encoders": encoders}})
    return job


def _check_room(name: str, job: Job, config: PipelineConfig) -> None:
    """On a head of our own, workers that do not fit would wait for ever."""
    here = config.cluster
    if here.address is None and job.runtime.workers > (here.gpus or here.cpus):
        raise ConfigError(
            f"{name}.yaml: runtime.workers {job.runtime.workers} do not fit into pipeline.cluster "
            f"(cpus {here.cpus}, gpus {here.gpus}); raise the one or lower the other"
        )


def _encoders(job: EncodeJob, there: Path) -> Input:
    """The frozen encoders as an input, so that what is in the folder is part of the job's identity."""
    files = hash_folder(ROOT / job.stage.encoders)
    if not files:
        raise ConfigError(f"{ROOT / job.stage.encoders}: no encoders there; `make encoders` makes them")
    return Input(path=str(there / job.stage.encoders), digest=digest(files))


def _split(overrides: Sequence[str]) -> dict[str, list[str]]:
    """Overrides by their first part."""
    found: dict[str, list[str]] = {}
    for item in overrides:
        target, dot, rest = item.partition(".")
        if not dot or "=" in target:
            raise ConfigError(f"override {item!r} must begin with a stage, such as t2i.stage.steps=100")
        found.setdefault(target, []).append(rest)
    return found
