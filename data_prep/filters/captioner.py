"""Captions of pictures by a vision-language model behind an endpoint, with the model and the prompt on record."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from data_prep.filters.candidate import Candidate
from data_prep.filters.config import CaptionerConfig
from data_prep.record import Problem
from dreamline.config import ConfigError
from dreamline.endpoint import Answer, ChatClient, EndpointFailure, Question
from dreamline.media.jpeg import encode_jpeg

PROMPT = (
    "Describe this picture for someone who has to paint it: the subjects, what they do, where they are, the style,"
    " the light and the composition. Name only what can be seen. Write one paragraph of at most 80 words, without an"
    " opening phrase such as 'The picture shows'."
)


@dataclass(frozen=True)
class ModelCaption:
    """A caption, and what is recorded with it."""

    text: str
    model: str  # as the server names it
    prompt_sha256: str


@dataclass(frozen=True)
class CaptionFailure(Problem):
    """Why a picture has no caption, and whether another attempt may give one."""

    url: str
    transient: bool
    status: int | None = None  # of HTTP


Item = TypeVar("Item")
Result = ModelCaption | CaptionFailure


class Captioner:
    """Asks the endpoint about each candidate's picture.

    Raises:
        ConfigError: the prompt or the key cannot be read.
    """

    def __init__(self, config: CaptionerConfig) -> None:
        self.config = config
        self.prompt = read_prompt(config.prompt_file, PROMPT)
        self.prompt_sha256 = hashlib.sha256(self.prompt.encode()).hexdigest()
        self._client = ChatClient(config.endpoint)

    def check(self) -> None:
        """ConfigError: the server is not there, or has no such model."""
        self._client.check()

    def caption(self, candidates: Iterable[Candidate]) -> Iterator[Result]:
        """One result per candidate, in order. A caption that was cut off at the length limit is a problem."""
        for _, result in self.caption_some(candidates, lambda candidate: candidate):
            if result is not None:
                yield result

    def caption_some(
        self, items: Iterable[Item], picture: Callable[[Item], Candidate | None]
    ) -> Iterator[tuple[Item, Result | None]]:
        """All items in order, with a caption or a problem where `picture` has a candidate; few items are held.

        Raises:
            ConfigError: the server has gone; that is no fault of a row.
        """

        def question(item: Item) -> Question | None:
            candidate = picture(item)
            if candidate is None:
                return None
            return Question(self.prompt, (encode_jpeg(candidate.image, self.config.quality),))

        for item, answer in self._client.ask_some(items, question):
            candidate = None if answer is None else picture(item)
            yield item, None if answer is None or candidate is None else self._result(candidate.row, answer)

    def _result(self, row: str, answer: Answer | EndpointFailure) -> Result:
        url = self.config.endpoint.base_url
        if isinstance(answer, EndpointFailure):
            if answer.reason in ("connect", "timeout"):
                self.check()
            return CaptionFailure(
                row, f"captioner_{answer.reason}", answer.detail, url, answer.transient, answer.status
            )
        if answer.finish_reason == "length":
            detail = "the answer reached endpoint.max_tokens; raise it"
            return CaptionFailure(row, "captioner_cut_off", detail, url, transient=False)
        return ModelCaption(answer.text, answer.model, self.prompt_sha256)


def read_prompt(path: str | None, default: str) -> str:
    """A prompt from a file, or the default.

    Raises:
        ConfigError: the file is missing or empty.
    """
    if path is None:
        return default
    try:
        text = Path(path).read_text(encoding="utf-8").strip()
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"prompt_file: {path}: cannot be read: {error}") from None
    if not text:
        raise ConfigError(f"prompt_file: {path} is empty")
    return text
