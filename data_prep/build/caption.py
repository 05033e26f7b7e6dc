"""Captions inside a build: asked for what the other row filters keep, before anything looks at texts."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from dataclasses import replace
from typing import Any

from data_prep.build.config import BuildConfig
from data_prep.build.prepare import Prepared
from data_prep.filters.candidate import Candidate
from data_prep.filters.captioner import Captioner, CaptionFailure, ModelCaption
from data_prep.filters.config import Rubric
from data_prep.record import Problem
from dreamline.endpoint import ChatClient

Row = tuple[Prepared, Problem | None]


def check_endpoints(config: BuildConfig) -> None:
    """Make sure of the models that captions and scores are asked of, before any work starts.

    Raises:
        ConfigError: a server is not there or has no such model; a prompt or a key cannot be read.
    """
    for rule in config.filters.scorers:
        if isinstance(rule, Rubric):
            ChatClient(rule.endpoint).check()
    if config.captions is not None:
        Captioner(config.captions).check()


def prompts(config: BuildConfig) -> dict[str, str]:
    """The text that captions are asked for with, by its sha256."""
    if config.captions is None:
        return {}
    captioner = Captioner(config.captions)
    return {captioner.prompt_sha256: captioner.prompt}


def captioned(captioner: Captioner, rows: Iterable[Row], source: str) -> Iterator[Row]:
    """The rows in order, with captions where they are wanted; a failure is the row's problem."""

    def picture(row: Row) -> Candidate | None:
        candidate, problem = row[0].candidate, row[1]
        wanted = problem is None and captioner.config.wants(candidate.record.kind, candidate.record.text, source)
        return candidate if wanted else None

    for (prepared, problem), result in captioner.caption_some(rows, picture):
        if isinstance(result, ModelCaption):
            _put_down(prepared, result)
        yield prepared, result if isinstance(result, CaptionFailure) else problem


def again(failure: CaptionFailure, record: str | None, span: str, row: str) -> dict[str, Any]:
    """Columns of the ledger: what it takes to try again.

    Args:
        failure: what was wrong.
        record: the row as JSON; None where its bytes came along, so that it has to be read again.
        span: name of the span of the source.
        row: name of the row.
    """
    return {
        "transient": failure.transient,
        "http_status": failure.status,
        "failed_url": failure.url,
        "record": record or json.dumps({"span": span, "row": row}),
    }


def _put_down(prepared: Prepared, caption: ModelCaption) -> None:
    """The model's words in place of the row's own, which stay on record."""
    candidate = prepared.candidate
    if candidate.record.text:
        prepared.noted["original_text"] = candidate.record.text
    prepared.noted |= {"caption_model": caption.model, "caption_prompt_sha256": caption.prompt_sha256}
    prepared.candidate = replace(candidate, record=replace(candidate.record, text=caption.text))
