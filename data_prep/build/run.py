"""A build from end to end. Every step may be repeated: what is staged or written already is kept, so a killed build
goes on where it was, and `dataset.json`, written last, is the only thing that a reader has to trust.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

from data_prep.build.attempt import DIED, Attempt, mark_name
from data_prep.build.augment import plan_augmentation
from data_prep.build.caption import check_endpoints, prompts
from data_prep.build.config import BuildConfig
from data_prep.build.embeddings import num_without, wants_embeddings, write_embeddings
from data_prep.build.known import Known
from data_prep.build.named import changed, check_models, models, named_files
from data_prep.build.pack import index_name
from data_prep.build.plan import Group, ShardPlan, Staged, plan_shards, read_staged
from data_prep.build.process import Processing, SpanTask
from data_prep.build.progress import Progress, Say, Step, silent
from data_prep.build.published import read_dataset, read_if_there
from data_prep.build.report import refresh_report
from data_prep.build.retry import Only, retry_spans
from data_prep.build.rules import Verdicts, judge_augmented, judge_together, write_evidence, write_preferences
from data_prep.build.shard import Writing, read_entry
from data_prep.build.statistics import MISSING, count_augmented, count_inputs
from data_prep.build.store import STAGING, Store, open_store
from data_prep.build.tables import RejectTables, fingerprint_of, known_hashes, write_manifest
from data_prep.sources.reader import open_source
from dreamline.cluster import connect, map_tasks
from dreamline.config import ConfigError, apply_override, build, digest
from dreamline.data.collection import CollectionInfo, Increment, ShardFile, TableEntry, parse_collection
from dreamline.data.manifest import DATASET, sum_counts

RECIPE_VERSION = 2  # raised when the same configuration gives other shards


@dataclass(frozen=True)
class Outcome:
    """What a build did."""

    increment: Increment
    info: CollectionInfo
    location: str

    def summary(self) -> dict[str, Any]:
        """The JSON object that the command ends with."""
        increment = self.increment
        return {
            "dataset": self.location,
            "num_inputs": increment.num_inputs,
            "num_kept": increment.num_kept,
            "num_rejected": increment.num_rejected,
            "num_ignored": increment.num_ignored,
            "num_augmented": increment.num_augmented,
            "rejected_by_reason": increment.rejected,
            "missing_scores": increment.statistics.get(MISSING, {}),
            "num_samples": self.info.num_samples,
            "num_shards": len(self.info.shards),
            "fingerprint": self.info.fingerprint,
        }


def run_build(config: BuildConfig, say: Say = silent) -> Outcome:
    """Build a data set, or add to the one that is there what it does not hold yet.

    Raises:
        ConfigError: a source or the output cannot be used.
        Conflict: another build has published in the meantime.
    """
    spans = []
    for number, source in enumerate(config.sources):
        reader = open_source(source)
        spans += [SpanTask(f"{number:03d}-{i:06d}", number, span) for i, span in enumerate(reader.spans())]
    return _run(config, spans, None, say)


def run_retry(config: BuildConfig, only: Only = "transient", say: Say = silent) -> Outcome:
    """Try again what earlier builds could not fetch or caption; what comes this time goes into new shards.

    Where there is nothing to try again, nothing is published and all counts are 0.

    Raises:
        ConfigError: there is no data set.
    """
    store = open_store(config.output)
    before = read_dataset(store)
    if before is None:
        raise ConfigError(f"{config.output}: no data set there, so nothing to try again; build it first")
    found = enumerate(retry_spans(store, config, before, only))
    spans = [SpanTask(f"retry-{number:06d}", source, span) for number, (source, span) in found]
    if not spans:
        say(Step("nothing to try again"))
        return Outcome(_empty(config, only), before, store.location)
    return _run(config, spans, only, say)


def last_config(location: str, overrides: Sequence[str] = ()) -> BuildConfig:
    """The configuration that a data set was last built by.

    Raises:
        ConfigError: there is no data set.
    """
    info = read_dataset(open_store(location))
    if info is None:
        raise ConfigError(f"{location}: no data set there; build it first, or name the YAML file of its build")
    values = {**info.increments[-1].config, "output": location}
    for item in overrides:
        apply_override(values, item)
    return build(BuildConfig, values, f"{location}/{DATASET}")


def _run(config: BuildConfig, spans: list[SpanTask], retry: Only | None, say: Say) -> Outcome:
    store = open_store(config.output)
    store.check()
    content = read_if_there(store, DATASET)
    before = None if content is None else parse_collection(content, f"{store.location}/{DATASET}")
    if before is not None and before.name != config.name:
        raise ConfigError(f"{store.location}: holds data set {before.name!r}, not {config.name!r}; use another output")
    named = named_files(config)
    asked = {"config": config.identity(), "spans": [repr(task) for task in spans], "recipe": RECIPE_VERSION}
    request = digest(asked | ({"files": named} if named else {}))
    done = None if retry else _done(before, request)
    if before is not None and done is not None:
        _report(config, store, before)
        store.clear(STAGING)
        say(Step("nothing to do: the data set holds all of it"))
        return Outcome(done, before, store.location)
    by_model = models(config, named)
    check_models(before, by_model, store.location)
    for path in changed(before, named):
        say(Step(f"{path} has changed since it was last used; it is applied to what the data set does not hold yet"))
    if wants_embeddings(config) and (others := num_without(before)):
        say(Step(f"{others} samples of the data set have no embeddings: new ones are not compared with those"))
    prefix = f"{STAGING}/{digest([request, retry, content.decode() if content else None])}/"
    if len(store.names(f"{prefix}index/")) < len(spans):
        check_endpoints(config)
    with _cluster(config.num_workers, len(spans)):
        known = known_hashes(store, before)
        _process(config, store, prefix, spans, known, say)
        staged = read_staged(store, prefix, [task.name for task in spans])
        verdicts = judge_together(store, prefix, staged, config, before)
        whole, decided = _augment(config, store, prefix, staged, verdicts, before, known, say)
        kept = decided.refusals.keep(len(whole))
        plans = plan_shards(whole, kept, config.shards, config.name, _next_numbers(before), decided.weights)
        say(Step(f"plan: {int(kept.sum())} staged samples go into {len(plans)} shards"))
        entries = _write(config, store, prefix, plans, say)
    say(Step("writing the tables"))
    negative = [plan.group.negative for plan in plans]
    good, bad = ([i for i, flag in enumerate(negative) if flag is wanted] for wanted in (False, True))
    manifests = [
        write_manifest(store, prefix, [plans[i] for i in chosen], [entries[i] for i in chosen], name)
        for chosen, name in ((good, "manifest"), (bad, "negatives-manifest"))
    ]
    tables = RejectTables(store, prefix, [task.name for task in spans], before, config.report_samples)
    rejects, failures = tables.write_rejects(staged, verdicts.refusals), tables.write_failures()
    counts = count_inputs(store, prefix, staged, verdicts.refusals)
    augmented = count_augmented(store, prefix, whole, decided.refusals, len(spans))
    increment = Increment(
        request=request,
        config=config.content(),
        files_named=named,
        models=by_model,
        prompts=prompts(config),
        retry=retry,
        num_inputs=counts.num_inputs,
        num_kept=sum(entries[i].samples for i in good) - augmented.num_kept,
        num_ignored=counts.num_ignored,
        num_augmented=augmented.num_kept,
        rejected=counts.rejected,
        shards=tuple(entries[i] for i in good),
        manifest=manifests[0],
        negatives=tuple(entries[i] for i in bad),
        negatives_manifest=manifests[1],
        preferences=write_preferences(store, prefix, staged, verdicts.refusals),
        evidence=write_evidence(store, decided),
        embeddings=write_embeddings(store, prefix, whole, kept) if wants_embeddings(config) else None,
        statistics=_together(counts.histograms, augmented.histograms),
    )
    if increment.num_inputs != increment.num_kept + increment.num_rejected + increment.num_ignored:
        raise RuntimeError(
            f"{store.location}: {increment.num_inputs} inputs, but {increment.num_kept} kept, "
            f"{increment.num_rejected} rejected and {increment.num_ignored} ignored; nothing was published"
        )
    if named_files(config) != named:
        store.clear(prefix)
        raise ConfigError(f"{store.location}: a file that a rule names has changed during the build; run it again")
    info = _publish(config, store, before, increment, rejects, failures, content)
    for old in (before.rejects, before.failures) if before is not None else ():
        if old.name not in (rejects.name, failures.name):
            store.delete(old.name)
    _report(config, store, info)
    store.clear(STAGING)
    return Outcome(increment, info, store.location)


def _process(
    config: BuildConfig,
    store: Store,
    prefix: str,
    spans: Sequence[SpanTask],
    known: Known,
    say: Say,
) -> None:
    """Stage every span that no earlier attempt has staged."""
    there = store.names(f"{prefix}index/")
    missing = [task for task in spans if index_name(prefix, task.name) not in there]
    progress = Progress("spans", len(spans), len(spans) - len(missing), say)
    at_a_time = min(config.num_workers, max(1, len(missing)))
    work = Processing(config, prefix, known, at_a_time)
    begun, died = store.names(mark_name(prefix, "")), mark_name(prefix, DIED)
    # Ray repeats a task whose process died. Without it the process is ours: after one death no span is worked on in it.
    wary = at_a_time == 1 and any(name in begun for name in (died, *(mark_name(prefix, task.name) for task in missing)))
    if wary and missing:
        store.put_first(died, b"")
        say(Step("an earlier attempt did not end: spans are now worked on in a process of their own"))
    map_tasks(Attempt(work, wary), missing, config.num_workers, progress)


def _augment(
    config: BuildConfig,
    store: Store,
    prefix: str,
    staged: Staged,
    verdicts: Verdicts,
    before: CollectionInfo | None,
    known: Known,
    say: Say,
) -> tuple[Staged, Verdicts]:
    """Make the edits that follow from accepted ones: everything staged, with them behind, and the verdicts on it."""
    found = plan_augmentation(store, prefix, staged, verdicts.refusals, config.edits.augment, known)
    if not found:
        return staged, verdicts
    tasks = [SpanTask(f"augment-{number:06d}", -1, span) for number, span in enumerate(found)]
    say(Step(f"augmentation: {sum(len(span.derivations) for span in found)} edits follow from accepted ones"))
    _process(config, store, prefix, tasks, known, say)
    whole = read_staged(store, prefix, [*staged.spans, *(task.name for task in tasks)])
    return whole, judge_augmented(store, prefix, whole, config, before, verdicts, len(staged))


def _write(config: BuildConfig, store: Store, prefix: str, plans: Sequence[ShardPlan], say: Say) -> list[ShardFile]:
    """Write every shard that no earlier attempt has written; all entries in the order of the plans."""
    sizes = store.names()
    missing = [plan for plan in plans if read_entry(store, prefix, plan, sizes) is None]
    progress = Progress("shards", len(plans), len(plans) - len(missing), say)
    map_tasks(Writing(config.output, prefix), missing, config.num_workers, progress)
    sizes = store.names()
    entries = [read_entry(store, prefix, plan, sizes) for plan in plans]
    lost = [plan.stem for plan, entry in zip(plans, entries, strict=True) if entry is None]
    if lost:
        raise RuntimeError(f"{store.location}: {', '.join(lost[:3])} vanished while being written; run the build again")
    return [entry for entry in entries if entry is not None]


def _publish(
    config: BuildConfig,
    store: Store,
    before: CollectionInfo | None,
    increment: Increment,
    rejects: TableEntry,
    failures: TableEntry,
    content: bytes | None,
) -> CollectionInfo:
    """Make the increment part of the data set: dataset.json, last, and only on top of the version we started from."""
    increments = (*(before.increments if before else ()), increment)
    manifests = [(item.manifest, item.shards) for item in increments if item.manifest is not None]
    info = CollectionInfo(
        name=config.name,
        fingerprint=fingerprint_of(store, manifests),
        num_samples=sum(item.num_kept + item.num_augmented for item in increments),
        increments=increments,
        rejects=rejects,
        failures=failures,
    )
    store.swap(DATASET, info.to_json(), content)
    return info


def _empty(config: BuildConfig, retry: Only) -> Increment:
    """What a retry without rows adds."""
    return Increment(
        request="",
        config=config.content(),
        retry=retry,
        num_inputs=0,
        num_kept=0,
        num_ignored=0,
        rejected={},
        shards=(),
        manifest=None,
        statistics={},
    )


def _report(config: BuildConfig, store: Store, info: CollectionInfo) -> None:
    if config.report:
        refresh_report(store, info, config.report_samples)


def _together(*histograms: Mapping[str, Mapping[str, int]]) -> dict[str, dict[str, int]]:
    names = sorted({name for found in histograms for name in found})
    return {name: sum_counts(found.get(name, {}) for found in histograms) for name in names}


def _done(before: CollectionInfo | None, request: str) -> Increment | None:
    """The last build, if it was asked for the same; failures that were tried again since do not count as builds."""
    builds = [item for item in before.increments if item.retry is None] if before else []
    return builds[-1] if builds and builds[-1].request == request else None


def _next_numbers(before: CollectionInfo | None) -> dict[Group, int]:
    """The first free number of a shard per group."""
    numbers: Counter[Group] = Counter()
    for item in before.increments if before else ():
        for negative, shards in ((False, item.shards), (True, item.negatives)):
            numbers.update(Group(shard.kind, negative, shard.bucket) for shard in shards)
    return dict(numbers)


@contextmanager
def _cluster(workers: int, num_tasks: int) -> Iterator[None]:
    """One Ray session for all phases, where there is more than one task to run at a time."""
    if workers == 1 or num_tasks < 2:
        yield
        return
    private = connect(workers)
    try:
        yield
    finally:
        if private:
            import ray

            ray.shutdown()
