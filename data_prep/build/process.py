"""The first phase, one task per span: rows are read, fetched, decoded and judged, and end in a staged part."""

from __future__ import annotations

import dataclasses
import functools
import math
import os
from collections import Counter, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any, TypeVar

from data_prep.build.alone import Note
from data_prep.build.augment import Derivation, DerivedSpan
from data_prep.build.caption import again, captioned
from data_prep.build.config import BuildConfig
from data_prep.build.derive import derive
from data_prep.build.guilty import NOBODY, Guilty
from data_prep.build.known import Known
from data_prep.build.pack import IGNORED, KEPT, NEGATIVE, REJECTED, Packed, PackWriter, Part, stage_part
from data_prep.build.prepare import Prepared, clean, prepare, to_sample
from data_prep.build.resolve import IN_DATASET, Dropped, Resolved, Row, resolve, sample_key
from data_prep.build.retry import RereadSpan, RetrySpan, read_retries, record_json
from data_prep.build.row_rules import RowRules, judge_texts, open_row_rules
from data_prep.build.store import open_store
from data_prep.build.thumbnail import thumbnail
from data_prep.edits.checks import EditChecks
from data_prep.edits.preference import NO_FAULT
from data_prep.edits.vocabulary import edit_type_of
from data_prep.fetch.fetcher import Fetcher
from data_prep.filters.candidate import Candidate, apply
from data_prep.filters.captioner import CaptionFailure
from data_prep.filters.columns import judge_candidate
from data_prep.filters.config import Threshold
from data_prep.filters.scorers import scored, why_missing
from data_prep.record import Problem, Record
from data_prep.sources.reader import Span, open_source
from dreamline.media.errors import MediaError

BATCH = 16  # pictures held decoded at a time
UNUSABLE = NO_FAULT | {"identical", "no_picture"}  # edits that are not even bad examples

Item = TypeVar("Item")
Begin = Callable[[int], None]  # told the number of a row before it is worked on


def _noted(note: Note, low: int) -> Begin:
    """Notes rows that are counted from `low`."""
    return lambda row: note((low + row, low + row + 1, False))


@dataclass(frozen=True)
class SpanTask:
    """The unit of work."""

    name: str  # unique in the build; sorts in the order of the sources
    source: int  # which of the configuration's; -1 for failures that are tried again and for augmentation
    span: Span | RetrySpan | RereadSpan | DerivedSpan

    @property
    def num_rows(self) -> int | None:
        """None where only reading tells."""
        if isinstance(self.span, Span):
            return self.span.num_rows
        return len(self.span.derivations if isinstance(self.span, DerivedSpan) else self.span.rows)


@dataclass(frozen=True)
class Processing:
    """What all tasks of the phase share."""

    config: BuildConfig
    prefix: str  # of staged files
    known: Known
    share: int  # tasks at a time: they share what a host allows

    def __call__(self, task: SpanTask, guilty: Guilty = NOBODY) -> int:
        """Stage one span; `guilty` rows are rejected unseen.

        Returns:
            Number of rows.
        """
        store = open_store(self.config.output)
        with stage_part(store, self.prefix, task.name) as part:
            for source, rows in self._rows(task):
                aside = guilty.set_aside(rows, len(part.rows), task.name, task.num_rows)
                _Span(self, part, source, task).run(aside)
            part.rows.sort(key=lambda row: row.pop("ordinal"))
        return len(part.rows)

    def examine(self, task: SpanTask, guilty: Guilty, which: range, size: int, note: Note) -> None:
        """Take rows of a span through everything but staging, one after another, having noted each before.

        What is noted is the first row at work, the one behind the last, and whether they are still being read.

        Args:
            which: numbers of the rows in the span.
            size: rows fetched at a time.
        """
        self.open_rules()  # what dies here is nobody's fault
        number = 0
        for source, stream in self._rows(task):
            rows, ended = iter(guilty.set_aside(stream, number, task.name, task.num_rows)), False
            while not ended and number < which.stop:
                low, chunk = max(number, which.start), list[Any]()
                while len(chunk) < size and number < which.stop and not ended:
                    note((number, number + 1, True))
                    row = next(rows, None)
                    ended = row is None
                    if row is not None and number >= low:
                        chunk.append(row)
                    number += row is not None
                note((low, low + len(chunk), False))
                with open(os.devnull, "wb") as nowhere:
                    span = _Span(self, Part(PackWriter(nowhere), []), source, task)
                    span.run(chunk, _noted(note, low))

    def open_rules(self) -> RowRules:
        """What judges single rows."""
        return open_row_rules(self.config.filters, self.config.captions, self.prefix)

    def _rows(self, task: SpanTask) -> Iterator[tuple[str, Iterable[Any]]]:
        """Rows of a span by source, as records or problems; or all of its derivations."""
        span = task.span
        if isinstance(span, DerivedSpan):
            yield "", span.derivations
            return
        if isinstance(span, RetrySpan):
            yield from read_retries(open_store(self.config.output), span)
            return
        reader, source = open_source(self.config.sources[task.source]), self.config.source_names[task.source]
        if isinstance(span, RereadSpan):
            wanted = set(span.rows)
            yield source, (row for row in reader.read(span.span) if row.row in wanted)
        else:
            yield source, reader.read(span)


class _Span:
    """One source's rows on their way into a part."""

    def __init__(self, shared: Processing, part: Part, source: str, task: SpanTask) -> None:
        self.shared, self.config, self.part, self.source, self.task = shared, shared.config, part, source, task
        self.base = len(part.rows)
        self.shown: Counter[str] = Counter()
        self.checks = EditChecks(self.config.edits.checks)

    def run(self, rows: Iterable[Any], begin: Begin | None = None) -> None:
        """Take every row to its end; with `begin` one after another."""
        if isinstance(self.task.span, DerivedSpan):
            for some in _portions(rows, begin):
                self._finish(self._derived(some))
        else:
            resolved = resolve(rows, self._fetcher, self.config.fetch_threads, self.shared.known.has_row)
            for some in _portions(resolved, begin):
                self._finish(self._prepared(some))

    def _finish(self, prepared: Iterator[Prepared]) -> None:
        rules, waiting = self.shared.open_rules(), deque[Prepared]()
        judged = apply(rules.rows, _candidates(prepared, waiting), batch_size=BATCH)
        stream: Iterator[tuple[Prepared, Problem | None]] = ((waiting.popleft(), problem) for _, problem in judged)
        if rules.captioner is not None:
            stream = judge_texts(rules.texts, captioned(rules.captioner, stream, self.source))
        while batch := list(islice(stream, BATCH)):
            self._score(rules, [one for one, problem in batch if problem is None])
            for one, problem in batch:
                self._judge(one, problem or judge_candidate(one.candidate, self._thresholds(one)))

    def _score(self, rules: RowRules, prepared: Sequence[Prepared]) -> None:
        """Add what models say of those that the row filters kept."""
        batch = [one.candidate for one in prepared]
        if batch and rules.scorers:
            before = why_missing(rules.scorers)
            for one, candidate in zip(prepared, scored(rules.scorers, batch), strict=True):
                one.candidate = candidate
                one.scores |= candidate.scores
            self.part.missing += why_missing(rules.scorers) - before
        if batch and rules.embedder is not None:
            for one, vector in zip(prepared, rules.embedder.embed(batch), strict=True):
                one.embedding = vector

    def _derived(self, derivations: Iterable[Derivation | Problem]) -> Iterator[Prepared]:
        """What can be made; everything else is put down as it comes."""
        for made in derive(derivations, self.config, open_store(self.config.output)):
            if isinstance(made, Dropped):
                self._drop(made)
            else:
                yield made

    def _prepared(self, rows: Iterable[Row]) -> Iterator[Prepared]:
        """What can be decoded; everything else is put down as it comes."""
        for row in rows:
            if isinstance(row, Dropped):
                self._drop(row)
                continue
            record = row.record
            key = sample_key(record, row.sha256, row.source_sha256)
            if self.shared.known.has_key(key):
                problem = Problem(record.row, IN_DATASET, f"the data set holds sample {key}")
                self._drop(Dropped(row.ordinal, record, problem, ignored=True), row, key)
                continue
            try:
                prepared = prepare(row, self.config, self.source)
            except MediaError as error:
                self._drop(Dropped(row.ordinal, record, Problem(record.row, error.reason, error.detail)), row, key)
            except Exception as error:  # a fault of ours; the row must neither stop the build nor vanish
                detail = f"{type(error).__name__}: {error}"
                self._drop(Dropped(row.ordinal, record, Problem(record.row, "unexpected", detail)), row, key)
            else:
                yield prepared

    def _judge(self, prepared: Prepared, problem: Problem | None) -> None:
        candidate, status = prepared.candidate, KEPT
        if problem is None and candidate.record.kind == "edit":
            problem = self._check_edit(prepared)
            if problem is not None and self._is_negative(prepared, problem):
                status = NEGATIVE
        if problem is not None and status == KEPT:
            status = REJECTED
        packed = None
        if status != REJECTED:
            sample, row = to_sample(prepared, self.config)
            packed = self.part.pack.add(clean({**row, "reason": problem.reason if problem else None}), sample.members())
        self._note(status, prepared.resolved, problem, prepared, packed)

    def _thresholds(self, prepared: Prepared) -> Sequence[Threshold]:
        """Those to go by. Scores that came with a source's rows are not known of what is made here."""
        filters = self.config.filters
        if not prepared.augmented:
            return filters.thresholds
        return [rule for rule in filters.thresholds if any(scorer.gives(rule.score) for scorer in filters.scorers)]

    def _checks(self, prepared: Prepared) -> EditChecks:
        """The same for edits."""
        limits = self.config.edits.checks.scores
        if not prepared.augmented or limits is None or {*limits.min, *limits.rubric} <= prepared.scores.keys():
            return self.checks
        return EditChecks(self.config.edits.checks.model_copy(update={"scores": None}))

    def _is_negative(self, prepared: Prepared, problem: Problem) -> bool:
        """Whether a rejected edit is kept as an example of how not to do it."""
        candidate, wanted = prepared.candidate, self.config.edits.negatives and not prepared.augmented
        wanted = wanted and problem.reason not in UNUSABLE
        return wanted and not self.shared.known.has_negative(candidate.key)

    def _check_edit(self, prepared: Prepared) -> Problem | None:
        candidate, record = prepared.candidate, prepared.candidate.record
        if candidate.source is None:
            return candidate.problem("no_picture", "the edit has no source picture")
        verdict = self._checks(prepared).judge(
            candidate.source,
            candidate.image,
            record.text or "",
            edit_type_of(record.label, record.text),
            prepared.mask,
            prepared.scores,
        )
        prepared.scores |= {name: value for name, value in verdict.measures.items() if math.isfinite(value)}
        if verdict.mask is not None:
            prepared.mask = verdict.mask
        return None if verdict.reason is None else candidate.problem(verdict.reason, verdict.detail)

    def _drop(self, dropped: Dropped, resolved: Resolved | None = None, key: str | None = None) -> None:
        record, failure = dropped.record, dropped.failure
        row: dict[str, Any] = {
            "status": IGNORED if dropped.ignored else REJECTED,
            "key": key,
            "sha256": resolved.sha256 if resolved else None,
        }
        if failure is not None:
            row |= {
                "transient": failure.transient,
                "http_status": failure.status,
                "failed_url": failure.url,
                "record": record_json(record) if record is not None else None,
            }
        self._add(dropped.ordinal, dropped.problem, record, row)

    def _note(
        self, status: str, resolved: Resolved, problem: Problem | None, prepared: Prepared, packed: Packed | None
    ) -> None:
        candidate = prepared.candidate
        names = ("key", "sha256", "pixel_sha256", "phash", "phash_mirrored", "width", "height")
        sources = ("sha256", "pixel_sha256", "phash", "phash_mirrored")
        row: dict[str, Any] = {
            "status": status,
            "source": candidate.source_name,
            "augmentation": prepared.noted.get("augmentation"),
            **{name: getattr(candidate, name) for name in names},
            **{f"source_{name}": getattr(candidate, f"source_{name}") for name in sources},
            "scores": sorted((name, float(value)) for name, value in prepared.scores.items()),
            "embedding": prepared.embedding,
            "bucket": prepared.bucket,
            **({} if packed is None else dataclasses.asdict(packed)),
        }
        if problem is not None and self.shown[problem.reason] < self.config.report_samples:
            self.shown[problem.reason] += 1
            row["thumbnail"] = thumbnail(candidate.image, candidate.source)
        if isinstance(problem, CaptionFailure):
            row |= again(problem, record_json(resolved.record), self.task.span.name, problem.row)
        self._add(resolved.ordinal, problem, candidate.record, row)

    def _add(self, ordinal: int, problem: Problem | None, record: Record | None, row: dict[str, Any]) -> None:
        described: dict[str, Any] = (
            {} if problem is None else {"row": problem.row, "reason": problem.reason, "detail": problem.detail}
        )
        if record is not None:
            described |= {
                "row": record.row,
                "kind": record.kind,
                "text": record.text,
                "label": record.label,
                "edit_type": edit_type_of(record.label, record.text) if record.kind == "edit" else None,
                "url": record.provenance.url or record.image.url,
                "licence": record.provenance.licence,
                "author": record.provenance.author,
            }
        self.part.rows.append(clean({"source": self.source, **described, **row, "ordinal": self.base + ordinal}))

    def _fetcher(self) -> Fetcher:
        return _fetcher(self.config.fetch, self.shared.share)


def _portions(rows: Iterable[Item], begin: Begin | None) -> Iterator[Iterable[Item]]:
    """All rows together; or one at a time, having told its number."""
    if begin is None:
        yield rows
        return
    for number, row in enumerate(rows):
        begin(number)
        yield [row]


def _candidates(prepared: Iterable[Prepared], waiting: deque[Prepared]) -> Iterator[Candidate]:
    for one in prepared:
        waiting.append(one)
        yield one.candidate


@functools.lru_cache(maxsize=2)
def _fetcher(config: Any, share: int) -> Fetcher:
    """One fetcher per process, so that connections and what is known of hosts outlive a span."""
    return Fetcher(config, share)
