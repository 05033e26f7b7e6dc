"""`dreamline data`: build a data set from a YAML file, look after it, and look at it."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from dreamline.config import ConfigError

if TYPE_CHECKING:
    from data_prep.build.config import BuildConfig
    from data_prep.build.progress import Step

app = typer.Typer(no_args_is_help=True, help="Build data sets from your own sources.")

ConfigFile = Annotated[Path, typer.Argument(help="YAML file of a build.")]
Target = Annotated[str, typer.Argument(help="YAML file of a build, or the data set: a folder or s3://bucket/prefix.")]
Overrides = Annotated[
    list[str] | None, typer.Option("--set", help="Dotted override, such as image.shorter_side=512; may be repeated.")
]
AsJson = Annotated[bool, typer.Option("--json", help="End with one JSON object on stdout; all else goes to stderr.")]
Workers = Annotated[int, typer.Option("--workers", min=1, help="Tasks at a time.")]


@app.command()
def build(
    config: ConfigFile,
    overrides: Overrides = None,
    flow: Annotated[bool, typer.Option("--flow", help="As a Prefect flow that submits a Ray job.")] = False,
    ray_address: Annotated[
        str | None,
        typer.Option("--ray-address", help="With --flow: a Ray cluster's dashboard; default: a local head."),
    ] = None,
    workspace: Annotated[
        Path, typer.Option("--workspace", help="With --flow: logs and results go below this folder.")
    ] = Path("workspace"),
    as_json: AsJson = False,
) -> None:
    """Build a data set, add what is new to it, or go on with a build that was interrupted."""
    from data_prep.build.config import load_build

    values = load_build(config, overrides or [])
    if flow:
        from flows.config import ClusterConfig
        from flows.data_run import plan_build, run_data_flow, show

        cluster = ClusterConfig(address=ray_address) if ray_address else None
        _end(run_data_flow(plan_build(values, workspace, cluster), show(as_json)), as_json)
        return
    from data_prep.build.run import run_build
    from data_prep.build.track import track

    outcome = run_build(values, _say)
    track(outcome, values)
    _end(outcome.summary(), as_json)


@app.command()
def encode(
    target: Target,
    encoders: Annotated[
        Path, typer.Option("--encoders", help="Folder with vae, text_encoder, tokenizer, processor.")
    ] = Path("assets/encoders"),
    output: Annotated[str, typer.Option("--output", help="Folder; default: beside a local data set.")] = "",
    overrides: Overrides = None,
    limit: Annotated[int | None, typer.Option("--limit", min=0, help="Stop after this many samples.")] = None,
    plan: Annotated[bool, typer.Option("--plan", help="Only say what it takes and saves.")] = False,
    epochs: Annotated[int, typer.Option("--epochs", min=1, help="With --plan: passes over the data.")] = 10,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Encode a data set: latents and text features, so that training never runs an encoder on these samples.

    --set changes the settings: text_dtype=bfloat16, latent_dtype, batch_size, fit.pixels and so on.
    """
    from data_prep.config import load_request
    from data_prep.encode_run import Encoding

    job = Encoding(load_request(_location(target), output, str(encoders), overrides or [], limit, workers))
    if not plan:
        _end(job.run(_say), as_json)
        return
    from data_prep.encode_plan import plan_encoding, plan_lines

    found = plan_encoding(job, epochs)
    print(json.dumps(found, indent=1) if as_json else "\n".join(plan_lines(found)))


@app.command()
def retry(
    target: Target,
    only: Annotated[str, typer.Option("--only", help="transient, permanent or all failures.")] = "transient",
    overrides: Overrides = None,
    as_json: AsJson = False,
) -> None:
    """Fetch again what could not be fetched; what comes this time goes into new shards."""
    from data_prep.build.retry import ONLY
    from data_prep.build.run import run_retry

    if only not in ONLY:
        raise ConfigError(f"--only {only}: must be one of {', '.join(ONLY)}")
    outcome = run_retry(_config(target, overrides or []), ONLY[only], _say)
    _end(outcome.summary(), as_json)


@app.command()
def verify(target: Target, workers: Workers = 1, as_json: AsJson = False) -> None:
    """Hash every file and every sample again."""
    from data_prep.build.verify import verify as check

    found = check(_location(target), workers, _say)
    _end(found.summary(), as_json)
    if not found.ok:
        raise typer.Exit(1)


@app.command()
def gc(
    target: Target,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Only list them.")] = False,
    as_json: AsJson = False,
) -> None:
    """Remove what interrupted builds left behind. Not while a build is running."""
    from data_prep.build.verify import collect_garbage

    names = collect_garbage(_location(target), dry_run)
    _end({"removed" if not dry_run else "orphans": names}, as_json)


@app.command()
def report(
    target: Target,
    out: Annotated[Path | None, typer.Option("--out", help="HTML file; default: report.html in the data set.")] = None,
    as_json: AsJson = False,
) -> None:
    """Write one HTML page of what came in, what stayed, and why the rest did not."""
    from data_prep.build.report import write_report

    _end(write_report(_location(target), out), as_json)


@app.command()
def index(
    folder: Annotated[str, typer.Argument(help="Folder or s3://bucket/prefix of .tar files.")],
    image: Annotated[str | None, typer.Option("--image", help="The picture: jpg,png or target.")] = None,
    source: Annotated[str | None, typer.Option("--source", help="What is edited: source or 0.png.")] = None,
    mask: Annotated[str | None, typer.Option("--mask", help="White where an edit may change the picture.")] = None,
    text: Annotated[str | None, typer.Option("--text", help="Caption or instruction: txt,json.caption.")] = None,
    label: Annotated[str | None, typer.Option("--label", help="Category or edit type: cls,json.label.")] = None,
    headers: Annotated[bool | None, typer.Option("--headers/--no-headers", help="Read the sizes of pictures.")] = None,
    hashed: Annotated[bool | None, typer.Option("--hash/--no-hash", help="Read every byte, to notice changes.")] = None,
    workers: Workers = 1,
    as_json: AsJson = False,
) -> None:
    """Index tars that others wrote where they lie, or what is new among them.

    Names of members are what follows the key, with commas between: the first that is there counts; 'none' for none.
    What is not given stays as it was in the last index.
    """
    from data_prep.index.run import index_folder
    from dreamline.data.foreign import parse_names

    given = {"image": image, "source": source, "mask": mask, "text": text, "label": label}
    roles = {role: parse_names(role, names) for role, names in given.items() if names is not None}
    _end(index_folder(folder, roles, headers, hashed, workers, _say).summary(), as_json)


@app.command()
def inspect(
    target: Target,
    key: Annotated[str | None, typer.Option("--key", help="Show this sample instead of the whole.")] = None,
    out: Annotated[Path | None, typer.Option("--out", help="With --key: write its pictures to this folder.")] = None,
    html: Annotated[
        Path | None, typer.Option("--html", help="Page to write; default: inspect-<name>.html here, none with --json.")
    ] = None,
    num: Annotated[int, typer.Option("--num", min=1, max=2000, help="Samples on the page.")] = 24,
    seed: Annotated[int, typer.Option("--seed", min=0, help="Of the choice of samples.")] = 0,
    as_json: AsJson = False,
) -> None:
    """Show what is in a data set: counts, histograms, and a page with some samples; or one sample."""
    from data_prep.inspect.run import inspect as look
    from data_prep.inspect.run import inspect_sample

    if key is None and out is not None:
        raise ConfigError("--out: goes with --key, the sample whose pictures are wanted; a page is named by --html")
    if key is not None:
        found, text = inspect_sample(_location(target), key, out)
    else:
        found, text = look(_location(target), html, num, seed, default_page=not as_json)
    print(json.dumps(found, indent=1) if as_json else text.rstrip("\n"))


def _config(target: str, overrides: list[str]) -> BuildConfig:
    """The build of a YAML file, or the one that a data set was last built by."""
    from data_prep.build.config import load_build
    from data_prep.build.run import last_config

    if _is_file(target):
        return load_build(target, overrides)
    return last_config(target, overrides)


def _location(target: str) -> str:
    """Where the data set lies."""
    from data_prep.build.config import load_build

    return load_build(target).output if _is_file(target) else target


def _is_file(target: str) -> bool:
    if target.endswith((".yaml", ".yml")):
        if not Path(target).is_file():
            raise ConfigError(f"{target}: no such file")
        return True
    return False


def _say(step: Step) -> None:
    print(step.text, file=sys.stderr, flush=True)


def _end(summary: dict[str, Any], as_json: bool) -> None:
    if as_json:
        print(json.dumps(summary, indent=1))
        return
    for name, value in summary.items():
        shown = ", ".join(f"{key} {number}" for key, number in value.items()) if isinstance(value, dict) else value
        print(f"{name}: {shown}")
