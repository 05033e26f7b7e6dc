"""The `dreamline` command line. Prefect, Ray and MLflow are imported by `run` alone, once there is something to do."""

from __future__ import annotations

import json
import subprocess
import sys
import traceback
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.console import Console
from rich.table import Table

from dreamline.config import ConfigError
from dreamline.result import ROOT, read_result, source_hash
from dreamline.storage_s3 import StorageError
from flows import data, doctor
from flows.cluster import ClusterError
from flows.display import Display, duration
from flows.gates import GateRefused
from flows.launch import ClusterLost, StageFailed, StateUnknown, Stopped, read_progress
from flows.processes import Busy, is_locked
from flows.run import leave
from flows.run import run as run_plan
from flows.stages import STUDENT, Plan, presets, resolve
from flows.summary import REPORT, score_rows, write_the_report

EXIT_CODES: dict[type[Exception], int] = {
    ConfigError: 2,
    GateRefused: 3,
    ClusterError: 4,
    ClusterLost: 4,
    StorageError: 4,
    Busy: 4,
    StateUnknown: 5,
    StageFailed: 1,
    Stopped: 130,
}
REPORTED: tuple[type[BaseException], ...] = (*EXIT_CODES, KeyboardInterrupt)

app = typer.Typer(
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    help="The DreamLite training pipeline: data, training, alignment, distillation, evaluation.",
    epilog="Exit codes: 0 done, 1 a stage failed, 2 configuration, 3 a gate refused, 4 infrastructure, "
    "5 state unknown (run again to attach), 130 stopped.",
)
config_app = typer.Typer(no_args_is_help=True, help="Look at the resolved configuration.")
app.add_typer(config_app, name="config")
app.add_typer(data.app, name="data")

Preset = Annotated[str, typer.Option("--preset", "-p", help="Folder in conf/.")]
Workspace = Annotated[Path, typer.Option("--workspace", help="Everything is written below this folder.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Dotted override, such as t2i.stage.steps=100; may be repeated.")
]
RayAddress = Annotated[
    str | None,
    typer.Option("--ray-address", help="Dashboard of a Ray cluster, http://host:8265; default: a local head."),
]
TrackingUri = Annotated[
    str | None, typer.Option("--tracking-uri", help="MLflow address, or 'none'; default: sqlite in the workspace.")
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")]
Model = Annotated[Path | None, typer.Option("--model", help="A diffusers folder; default: the newest student.")]
Seed = Annotated[int, typer.Option("--seed", help="Same seed, same picture.")]


@app.command()
def run(
    preset: Preset = "demo",
    workspace: Workspace = Path("workspace"),
    overrides: Overrides = None,
    ray_address: RayAddress = None,
    tracking_uri: TrackingUri = None,
    as_json: AsJson = False,
) -> None:
    """Run the whole pipeline, or what is left of it."""
    plan = _plan(preset, workspace, overrides, ray_address, tracking_uri)
    summary = run_plan(plan, Display(len(plan.stages), sys.stderr if as_json else sys.stdout))
    report = plan.preset_dir / REPORT
    if as_json:
        _print_json({**summary, "report": str(report)})
    else:
        _print_scores(summary)
        print(f"report: {_short(report)}")


@app.command()
def status(
    preset: Preset = "demo",
    workspace: Workspace = Path("workspace"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Say what is done, what runs and what is left. Only looks at files."""
    plan = _plan(preset, workspace, overrides, None, None)
    running = is_locked(plan.preset_dir / "lock")
    rows = []
    for name, stage in plan.stages.items():
        result, progress = stage.result(), read_progress(stage.run_dir)
        row: dict[str, Any] = {"name": name, "state": "to do", "run_dir": str(stage.run_dir), "wall_s": None}
        if result is not None:
            row |= {"state": "done", "wall_s": result.wall_s, "older_code": result.source != source_hash()}
        elif progress is not None:
            done = f"{progress.done}/{progress.total} {progress.unit}"
            row |= {"state": "running" if running else "interrupted", "progress": done}
        rows.append(row)
    if as_json:
        _print_json({"preset": preset, "running": running, "stages": rows})
        return
    table = Table("stage", "state", "time", "folder", box=None)
    for row in rows:
        state = " ".join([row["state"], row.get("progress", ""), "(older code)" if row.get("older_code") else ""])
        time = duration(row["wall_s"]) if row["wall_s"] is not None else ""
        table.add_row(row["name"], state.strip(), time, _short(Path(row["run_dir"])))
    _console().print(table)


@app.command()
def report(preset: Preset = "demo", workspace: Workspace = Path("workspace"), as_json: AsJson = False) -> None:
    """Write the report of what is done so far."""
    plan = _plan(preset, workspace, None, None, None)
    if not plan.results():
        raise ConfigError(f"{plan.preset_dir}: nothing is done yet; start with `dreamline run --preset {preset}`")
    path = write_the_report(plan)
    _tell(as_json, {"report": str(path)}, f"report: {_short(path)}")


@app.command()
def generate(
    prompt: Annotated[str, typer.Argument(help="What to draw.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write.")],
    model: Model = None,
    seed: Seed = 0,
    workspace: Workspace = Path("workspace"),
    as_json: AsJson = False,
) -> None:
    """Draw a picture from a text."""
    _paint(["--prompt", prompt], out, model, seed, workspace, as_json)


@app.command()
def edit(
    image: Annotated[Path, typer.Argument(help="Picture to change.")],
    instruction: Annotated[str, typer.Argument(help="What to change.")],
    out: Annotated[Path, typer.Option("--out", help="Picture to write.")],
    model: Model = None,
    seed: Seed = 0,
    workspace: Workspace = Path("workspace"),
    as_json: AsJson = False,
) -> None:
    """Change a picture by an instruction."""
    if not image.is_file():
        raise ConfigError(f"{image}: no such picture")
    _paint(["--prompt", instruction, "--image", str(image.resolve())], out, model, seed, workspace, as_json)


@app.command("doctor")
def doctor_command(workspace: Workspace = Path("workspace"), as_json: AsJson = False) -> None:
    """Check this machine for what a run needs."""
    checks = doctor.examine(workspace)
    if as_json:
        _print_json({"ok": all(check.ok for check in checks), "checks": [check.as_dict() for check in checks]})
    else:
        for check in checks:
            print(
                f"ok   {check.name}: {check.found}" if check.ok else f"FAIL {check.name}: {check.found}; {check.cure}"
            )
    if not all(check.ok for check in checks):
        raise typer.Exit(1)


@config_app.command("show")
def config_show(
    preset: Preset = "demo",
    stage: Annotated[str | None, typer.Argument(help="One stage; default: all.")] = None,
    workspace: Workspace = Path("workspace"),
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Show every resolved job with its digest."""
    plan = _plan(preset, workspace, overrides, None, None)
    if stage is not None and stage not in plan.stages:
        raise ConfigError(f"no stage {stage!r} in preset {preset}; there are {', '.join(plan.stages)}")
    chosen = [plan.stages[stage]] if stage else list(plan.stages.values())
    value = {
        "pipeline": plan.config.model_dump(mode="json"),
        "stages": {item.name: {"digest": item.digest, **item.job.model_dump(mode="json")} for item in chosen},
    }
    if as_json:
        _print_json(value)
    else:
        import yaml

        print(yaml.safe_dump(value, sort_keys=False), end="")


@config_app.command("validate")
def config_validate(
    preset: Annotated[
        str | None, typer.Option("--preset", "-p", help="Folder in conf/; default: every preset.")
    ] = None,
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Check every configuration file of a preset."""
    names = [preset] if preset else presets()
    counts = {name: len(_plan(name, Path("workspace"), overrides, None, None).stages) for name in names}
    _tell(as_json, {"valid": counts}, "\n".join(f"{name}: {count} jobs, valid" for name, count in counts.items()))


def main() -> None:
    """Entry point: errors become one message and an exit code."""
    try:
        app()
        code = 0
    except SystemExit as done:
        code = done.code if isinstance(done.code, int) else 1
    except REPORTED as error:
        code = next((number for kind, number in EXIT_CODES.items() if isinstance(error, kind)), 130)
        message = str(error) or "interrupted"
        if "--json" in sys.argv[1:]:
            _print_json({"error": message, "kind": type(error).__name__, "exit_code": code})
        else:
            print(f"dreamline: {message}", file=sys.stderr)
    except Exception:
        traceback.print_exc()  # a bug of ours, or an answer that nobody expected
        code = 1
    leave(code)


def _plan(
    preset: str, workspace: Path, overrides: list[str] | None, ray_address: str | None, tracking_uri: str | None
) -> Plan:
    lines = [*(overrides or ()), *([f"pipeline.cluster.address={ray_address}"] if ray_address else ())]
    return resolve(preset, workspace, lines, tracking_uri)


def _paint(options: list[str], out: Path, model: Path | None, seed: int, workspace: Path, as_json: bool) -> None:
    """Start the room that has the network; this process has no torch."""
    folder = (model or newest_student(workspace)).resolve()
    command = [sys.executable, "-m", "evaluation.generate", "--model", str(folder), *options]
    command += ["--out", str(out.resolve()), "--seed", str(seed), *(["--json"] if as_json else [])]
    done = subprocess.run(command, cwd=ROOT, check=False)
    if done.returncode:
        raise typer.Exit(done.returncode)


def newest_student(workspace: Path) -> Path:
    """Checkpoint of the newest finished student in a workspace, of whichever preset.

    Raises:
        ConfigError: there is none.
    """
    results = sorted(workspace.glob(f"*/runs/{STUDENT}/*/result.json"), key=lambda path: path.stat().st_mtime)
    for path in reversed(results):
        result = read_result(path.parent)
        if result is not None and result.output("checkpoint").is_dir():
            return result.output("checkpoint")
    raise ConfigError(f"{workspace}: no finished student there; run `dreamline run` first, or give --model DIR")


def _print_scores(summary: dict[str, Any]) -> None:
    rows = score_rows(summary)
    table = Table(*rows[0], box=None)
    for row in rows:
        table.add_row(*row.values())
    _console().print(table)


def _console() -> Console:
    return Console(highlight=False, soft_wrap=True)


def _tell(as_json: bool, value: dict[str, Any], text: str) -> None:
    if as_json:
        _print_json(value)
    else:
        print(text)


def _print_json(value: dict[str, Any]) -> None:
    print(json.dumps(value, indent=1))


def _short(path: Path) -> str:
    """Relative to the working folder where that is shorter."""
    try:
        return str(path.relative_to(Path.cwd()))
    except ValueError:
        return str(path)


if __name__ == "__main__":
    main()
