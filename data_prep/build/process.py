"""The first phase, one task per span: rows are read, fetched, decoded and judged, and end in a staged part."""

from __future__ import annotations

import dataclasses
import functools
import json
import math
from collections import Counter, deque
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

from data_prep.build.augment import DerivedSpan
from data_prep.build.caption import again, captioned
from data_prep.build.config import BuildConfig
from data_prep.build.derive import derive
from data_prep.build.known import Known
from data_prep.build.pack import IGNORED, KEPT, NEGATIVE, REJECTED, Packed, Part, stage_part
from data_prep.build.prepare import Prepared, clean, prepare, to_sample
from data_prep.build.resolve import IN_DATASET, Dropped, Resolved, Row, resolve, sample_key
from data_prep.build.retry import RereadSpan, RetrySpan, read_retries
from data_prep.build.store import open_store
from data_prep.build.thumbnail import thumbnail
from data_prep.edits.checks import EditChecks
from data_prep.edits.preference import NO_FAULT
from data_prep.edits.vocabulary import edit_type_of
from data_prep.fetch.fetcher import Fetcher
from data_prep.filters.candidate import Candidate, RowFilter, apply
from data_prep.filters.captioner import Captioner, CaptionFailure
from data_prep.filters.columns import judge_candidate
from data_prep.filters.config import Caption, CaptionerConfig, EmbeddingDuplicates, FiltersConfig, Threshold
from data_prep.filters.rows import open_row_filters
from data_prep.filters.scorers import Embedder, Scorer, open_embedder, open_scorer, scored, why_missing
from data_prep.record import Problem, Record
from data_prep.sources.reader import Span, open_source
from dreamline.media.errors import MediaError

BATCH = 16  # pictures held decoded at a time
UNUSABLE = NO_FAULT | {"identical", "no_picture"}  # edits that are not even bad examples


@dataclass(frozen=True)
class SpanTask:
    """The unit of work."""

    name: str  # unique in the build; sorts in the order of the sources
    source: int  # which of the configuration's; -1 for failures that are tried again and for augmentation
    span: Span | RetrySpan | RereadSpan | DerivedSpan


@dataclass(frozen=True)
class Processing:
    """What all tasks of the phase share."""

    config: BuildConfig
    prefix: str  # of staged files
    known: Known
    share: int  # tasks at a time: they share what a host allows

    def __call__(self, task: SpanTask) -> int:
        """Stage one span.

        Returns:
            Number of rows.
        """
        store = open_store(self.config.output)
        with stage_part(store, self.prefix, task.name) as part:
            if isinstance(task.span, DerivedSpan):
                _Span(self, part, "", "").augment(task.span)
            else:
                for source, row in self._rows(task.source, task.span):
                    _Span(self, part, source, task.span.name).run(row)
            part.rows.sort(key=lambda row: row.pop("ordinal"))
        return len(part.rows)

    def _rows(
        self, number: int, span: Span | RetrySpan | RereadSpan
    ) -> Iterator[tuple[str, Iterable[Record | Problem]]]:
        """Rows of a span, by source."""
        if isinstance(span, RetrySpan):
            yield from read_retries(open_store(self.config.output), span)
            return
        reader, source = open_source(self.config.sources[number]), self.config.source_names[number]
        if isinstance(span, RereadSpan):
            wanted = set(span.rows)
            yield source, (row for row in reader.read(span.span) if row.row in wanted)
        else:
            yield source, reader.read(span)


class _Span:
    """One source's rows on their way into a part."""

    def __init__(self, shared: Processing, part: Part, source: str, span: str) -> None:
        self.shared, self.config, self.part, self.source, self.span = shared, shared.config, part, source, span
        self.base = len(part.rows)
        self.shown: Counter[str] = Counter()
        self.checks = EditChecks(self.config.edits.checks)

    def run(self, rows: Iterable[Record | Problem]) -> None:
        """Take every row to its end."""
        waiting: deque[Prepared] = deque()
        resolved = resolve(rows, self._fetcher, self.config.fetch_threads, self.shared.known.has_row)
        self._finish(self._candidates(resolved, waiting), waiting)

    def augment(self, span: DerivedSpan) -> None:
        """The same for edits that are made of accepted ones."""
        waiting: deque[Prepared] = deque()

        def candidates() -> Iterator[Candidate]:
            for made in derive(span, self.config, open_store(self.config.output)):
                if isinstance(made, Dropped):
                    self._drop(made)
                else:
                    waiting.append(made)
                    yield made.candidate

        self._finish(candidates(), waiting)

    def _finish(self, candidates: Iterator[Candidate], waiting: deque[Prepared]) -> None:
        rules = _rules(self.config.filters, self.config.captions)
        judged = apply(rules.rows, candidates, batch_size=BATCH)
        stream: Iterator[tuple[Prepared, Problem | None]] = ((waiting.popleft(), problem) for _, problem in judged)
        if rules.captioner is not None:
            stream = _judge_texts(rules.texts, captioned(rules.captioner, stream, self.source))
        while batch := list(islice(stream, BATCH)):
            self._score(rules, [one for one, problem in batch if problem is None])
            for one, problem in batch:
                self._judge(one, problem or judge_candidate(one.candidate, self._thresholds(one)))

    def _score(self, rules: Rules, prepared: Sequence[Prepared]) -> None:
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

    def _candidates(self, rows: Iterable[Row], waiting: deque[Prepared]) -> Iterator[Candidate]:
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
                waiting.append(prepared)
                yield prepared.candidate

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
            row |= again(problem, record_json(resolved.record), self.span, problem.row)
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


@dataclass(frozen=True)
class Rules:
    """What judges single rows, loaded once per process."""

    rows: Sequence[RowFilter]
    texts: Sequence[RowFilter]  # those of `rows` that have to wait for the captioner
    captioner: Captioner | None
    scorers: Sequence[Scorer]
    embedder: Embedder | None


@functools.lru_cache(maxsize=1)
def _rules(config: FiltersConfig, captions: CaptionerConfig | None) -> Rules:
    texts = [rule for rule in config.rows if captions is not None and isinstance(rule, Caption)]
    embeddings = [rule for rule in config.sets if isinstance(rule, EmbeddingDuplicates)]
    scorers = [open_scorer(rule) for rule in config.scorers]
    return Rules(
        rows=open_row_filters([rule for rule in config.rows if rule not in texts]),
        texts=open_row_filters(texts),
        captioner=None if captions is None else Captioner(captions),
        scorers=scorers,
        embedder=open_embedder(embeddings[0]) if embeddings else None,
    )


def _judge_texts(filters: Sequence[RowFilter], rows: Iterator[tuple[Prepared, Problem | None]]) -> Iterator[Any]:
    """Judge what has got its final text."""
    for one, problem in rows:
        found = (rule.judge([one.candidate])[0] for rule in filters if problem is None)
        yield one, problem or next((verdict for verdict in found if verdict is not None), None)


def record_json(record: Record) -> str | None:
    """A record without bytes as JSON, to try it again; None where bytes came along."""
    if any(
        picture is not None and picture.content is not None for picture in (record.image, record.source, record.mask)
    ):
        return None
    return json.dumps(dataclasses.asdict(record), sort_keys=True)


@functools.lru_cache(maxsize=2)
def _fetcher(config: Any, share: int) -> Fetcher:
    """One fetcher per process, so that connections and what is known of hosts outlive a span."""
    return Fetcher(config, share)
