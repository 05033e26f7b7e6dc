"""The whole pipeline on one page: each node is one Ray job, an arrow is a result that the next job starts from.

data -> encode -> t2i -> edit -> joint -> sft ---> refl -> dmd2 -> publish
           \\______________________________ reward _/
and every checkpoint has an evaluation beside it
"""

from __future__ import annotations

from types import TracebackType
from typing import Any, ParamSpec, TypeVar

from prefect import Flow, flow, task
from prefect.artifacts import create_link_artifact, create_table_artifact
from prefect.cache_policies import NO_CACHE
from prefect.client.schemas.objects import State
from prefect.futures import PrefectFuture
from prefect.task_runners import ThreadPoolTaskRunner

from dreamline.result import StageResult
from flows import summary
from flows.launch import ClusterLost
from flows.session import current

P = ParamSpec("P")
R = TypeVar("R")
RETRY_AFTER_S = [2.0, 5.0, 15.0, 30.0, 60.0, 120.0]  # a lost head takes seconds to come back, a lost node minutes


def _is_lost(_task: object, _run: object, state: State[StageResult]) -> bool:
    """Only infrastructure is worth a repeat: a wrong setting or a failing stage stays wrong."""
    return isinstance(state.result(raise_on_failure=False), ClusterLost)


@task(
    task_run_name="{name}",
    cache_policy=NO_CACHE,  # files say what is done
    retries=len(RETRY_AFTER_S),
    retry_delay_seconds=RETRY_AFTER_S,
    retry_condition_fn=_is_lost,
)
def stage(name: str, *after: object) -> StageResult:
    """One node: run the stage, or find it done. `after` are the results it depends on."""
    return current().run(name)


class Branch:
    """Nodes of one flow. Each has its evaluation beside it; leaving the block waits for all of them."""

    def __init__(self) -> None:
        self.nodes: list[PrefectFuture[StageResult]] = []

    def __call__(self, name: str, *after: StageResult | PrefectFuture[StageResult]) -> PrefectFuture[StageResult]:
        planned = current().plan.stages
        node = stage.submit(name, *after)
        looks = [other.name for other in planned.values() if other.evaluates == name]
        self.nodes += [node, *(stage.submit(look, node) for look in looks)]
        return node

    def __enter__(self) -> Branch:
        return self

    def __exit__(self, kind: type[BaseException] | None, _: BaseException | None, __: TracebackType | None) -> None:
        for node in self.nodes:
            node.wait()
        if kind is None:
            for node in self.nodes:
                node.result()


@flow
def data() -> StageResult:
    """Draw the data sets, and encode them once with the frozen encoders."""
    with Branch() as run:
        drawn = run("data")
        encoded = run("encode", drawn)
    return encoded.result()


@flow
def training(encoded: StageResult) -> StageResult:
    """Task-progressive training: generation, editing, both together, then fine-tuning."""
    with Branch() as run:
        t2i = run("t2i", encoded)
        edit = run("edit", encoded, t2i)
        joint = run("joint", encoded, edit)
        sft = run("sft", encoded, joint)
    return sft.result()


@flow
def alignment(encoded: StageResult, sft: StageResult) -> StageResult:
    """A reward model, and fine-tuning towards it."""
    with Branch() as run:
        reward = run("reward", encoded)
        refl = run("refl", encoded, sft, reward)
        if "unguarded" in current().plan.stages:
            run("unguarded", encoded, sft, run("hasty", encoded))
    return refl.result()


@flow
def distillation(encoded: StageResult, teacher: StageResult) -> StageResult:
    """A student that needs four steps."""
    with Branch() as run:
        student = run("dmd2", encoded, teacher)
    return student.result()


def in_turn(part: Flow[P, R]) -> Flow[P, R]:
    """A part of the pipeline with as many jobs at a time as the preset allows, first come first served."""
    runner: Any = ThreadPoolTaskRunner(max_workers=current().plan.config.concurrency)
    return part.with_options(task_runner=runner)


@task(cache_policy=NO_CACHE)
def publish(student: StageResult) -> None:
    """Scores and champion to the registry, report and summary to the workspace, both linked from here."""
    plan = current().plan
    made = summary.publish(plan)
    create_table_artifact(table=summary.score_rows(made), key="scores", description=f"Scores of preset {plan.preset}")
    create_link_artifact(link=(plan.preset_dir / summary.REPORT).as_uri(), key="report", link_text="Report")


def close_stale_runs() -> None:
    """Call runs crashed that a killed process left as running; with a server and a lock of our own all others are."""
    from prefect.client.orchestration import get_client
    from prefect.client.schemas.filters import FlowRunFilter, FlowRunFilterState, FlowRunFilterStateType
    from prefect.client.schemas.objects import StateType
    from prefect.states import Crashed

    running = FlowRunFilterState(type=FlowRunFilterStateType(any_=[StateType.RUNNING, StateType.PENDING]))
    with get_client(sync_client=True) as client:
        for run in client.read_flow_runs(flow_run_filter=FlowRunFilter(state=running)):
            client.set_flow_run_state(run.id, Crashed(message="its process was killed"), force=True)


@flow(flow_run_name="{preset}")
def pipeline(preset: str) -> None:
    """Everything, from nothing to a distilled student."""
    encoded = in_turn(data)()
    sft = in_turn(training)(encoded)
    teacher = in_turn(alignment)(encoded, sft)
    student = in_turn(distillation)(encoded, teacher)
    publish(student)
