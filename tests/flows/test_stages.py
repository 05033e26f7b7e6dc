"""The plan: digests chain through inputs, and every mistake is named before anything starts."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from dreamline.config import ConfigError
from dreamline.result import RESULT, StageResult
from flows.stages import CHECKPOINTS, PLANTED, STAGES, Plan, PlannedStage, presets, resolve


def smoke(tmp_path: Path, *overrides: str) -> Plan:
    return resolve("smoke", tmp_path, overrides)


def changed(one: Plan, other: Plan) -> list[str]:
    return [name for name in one.stages if one.stages[name].digest != other.stages[name].digest]


@pytest.mark.parametrize("preset", presets())
def test_every_preset_resolves_with_an_evaluation_beside_each_checkpoint(preset: str, tmp_path: Path) -> None:
    plan = resolve(preset, tmp_path)
    order = list(plan.stages)
    stages = [stage.name for stage in STAGES if stage.name not in PLANTED or plan.config.plant_hacking]
    assert [name for name in order if not name.startswith("eval-")] == stages
    evaluated = [name for name in stages if name in CHECKPOINTS and name not in PLANTED]
    assert all(order.index(f"eval-{name}") == order.index(name) + 1 for name in evaluated)
    assert plan.missing() == order
    assert list(tmp_path.iterdir()) == [], "resolving writes nothing"


def test_jobs_are_wired_by_folder_and_digest(tmp_path: Path) -> None:
    plan = smoke(tmp_path)
    joint, edit, encode = (plan.stages[name] for name in ("joint", "edit", "encode"))
    assert joint.job.inputs["init_from"].digest == edit.digest
    assert joint.job.inputs["frozen"].path == str(encode.run_dir / "frozen")
    assert encode.job.inputs["encoders"].digest
    assert joint.run_dir == tmp_path / "smoke" / "runs" / "joint" / f"smoke-{joint.digest}"
    assert joint.job.runtime.tracking_uri == f"sqlite:///{tmp_path}/mlflow.db"
    assert plan.stages["eval-joint"].job.stage.name == "eval-joint"  # type: ignore[attr-defined]


def test_a_change_reaches_exactly_what_depends_on_it(tmp_path: Path) -> None:
    before = smoke(tmp_path)
    assert changed(before, smoke(tmp_path, "dmd2.stage.seed=7")) == ["dmd2", "eval-dmd2"]
    assert changed(before, smoke(tmp_path, "eval-t2i.stage.seed=7")) == ["eval-t2i"]
    evaluations = [name for name in before.stages if name.startswith("eval-")]
    assert changed(before, smoke(tmp_path, "evaluation.stage.seed=7")) == evaluations
    assert changed(before, smoke(tmp_path, "data.stage.seed=7")) == list(before.stages)
    after_joint = changed(before, smoke(tmp_path, "joint.stage.steps=7"))
    assert after_joint == [
        *("joint", "eval-joint", "sft", "eval-sft", "refl", "eval-refl", "eval-refl-naive", "dmd2", "eval-dmd2")
    ]


def test_a_checkpoint_may_be_evaluated_in_several_ways(tmp_path: Path) -> None:
    plan = smoke(tmp_path)
    naive = plan.stages["eval-refl-naive"]
    assert naive.evaluates == "refl"
    assert naive.job.inputs == plan.stages["eval-refl"].job.inputs
    assert naive.job.stage.sampling.num_steps == 4  # type: ignore[attr-defined]
    with pytest.raises(ConfigError, match=r"evaluate: \['naive-refl'\] have no checkpoint"):
        smoke(tmp_path, "pipeline.evaluate.naive-refl={}")


def test_hacking_is_planted_on_demand(tmp_path: Path) -> None:
    assert not set(PLANTED) & set(smoke(tmp_path).stages)
    demo = resolve("demo", tmp_path)
    guarded, planted = (demo.stages[name].job.stage.model_dump() for name in ("refl", "unguarded"))
    guards = {"generation", "editing", "flow_matching_weight"}
    changed = {key for key in guarded if guarded[key] != planted[key]}
    assert guards < changed
    assert changed - guards <= {"name", "steps", "mixture", "optim", "probe"}
    assert planted["generation"]["cap"] is planted["editing"]["cap"] is None
    assert planted["flow_matching_weight"] == 0
    rewards = [demo.stages[name].job.stage.model_dump() for name in ("reward", "hasty")]
    assert {key for key in rewards[0] if rewards[0][key] != rewards[1][key]} == {"name", "steps", "num_eval"}
    assert demo.stages["unguarded"].job.inputs["reward"].digest == demo.stages["hasty"].digest
    with pytest.raises(ConfigError, match=r"hasty\.yaml: no such file"):
        smoke(tmp_path, "pipeline.plant_hacking=true")


def test_how_a_job_is_carried_out_is_no_part_of_its_identity(tmp_path: Path) -> None:
    overrides = ["t2i.runtime.workers=1", "t2i.runtime.threads=2", "pipeline.cluster.cpus=8"]
    assert changed(smoke(tmp_path), smoke(tmp_path / "elsewhere", *overrides)) == []


@pytest.mark.parametrize(
    ("override", "message"),
    [
        ("t2i.stage.stepz=1", r"t2i\.yaml: not a valid TrainJob\n  stage\.stepz: Extra inputs"),
        ("t2i.stage.steps=0", r"stage\.steps: Input should be greater than 0"),
        ("tti.stage.steps=1", r"no such stage; begin with one of pipeline, data"),
        ("steps=1", r"must begin with a stage"),
        ("pipeline.evaluate.reward={}", r"\['reward'\] have no checkpoint"),
        ("pipeline.cluster.cpus=1", r"data\.yaml: runtime\.workers 2 do not fit into pipeline\.cluster"),
        ("encode.stage.encoders=nowhere", r"no encoders there; `make encoders`"),
    ],
)
def test_mistakes_are_named(tmp_path: Path, override: str, message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        smoke(tmp_path, override)


def test_an_unknown_preset_lists_those_that_exist(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"choose one of demo, smoke"):
        resolve("dem", tmp_path)


def test_tracking_can_be_elsewhere_or_nowhere(tmp_path: Path) -> None:
    assert resolve("smoke", tmp_path, tracking_uri="http://mlflow:5000").tracking_uri == "http://mlflow:5000"
    assert resolve("smoke", tmp_path, tracking_uri="none").stages["t2i"].job.runtime.tracking_uri is None
    assert smoke(tmp_path, "pipeline.tracking_uri=http://mlflow:1").tracking_uri == "http://mlflow:1"


def finish(stage: PlannedStage, digest: str) -> None:
    (stage.run_dir / "checkpoint").mkdir(parents=True, exist_ok=True)
    result = StageResult(stage=stage.name, digest=digest, run_dir="moved", outputs={"checkpoint": "checkpoint"})
    (stage.run_dir / RESULT).write_text(result.model_dump_json())


def test_done_means_the_same_digest_and_outputs_that_are_there(tmp_path: Path) -> None:
    stage = smoke(tmp_path).stages["t2i"]
    assert stage.result() is None
    finish(stage, "another")
    assert stage.result() is None
    finish(stage, stage.digest)
    result = stage.result()
    assert result is not None
    assert result.output("checkpoint") == stage.run_dir / "checkpoint"
    shutil.rmtree(stage.run_dir / "checkpoint")
    assert stage.result() is None
