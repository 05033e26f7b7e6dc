"""Captions of pictures by a vision-language model behind an endpoint, with the model and the prompt on record."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from pydantic import Field

from data_prep.filters.candidate import Candidate
from data_prep.record import Problem
from dreamline.config import Config, ConfigError
from dreamline.endpoint import Answer, ChatClient, EndpointConfig, EndpointFailure, Question
from dreamline.media.jpeg import encode_jpeg

PROMPT = (
    "Describe this picture for someone who has to paint it: the subjects, what they do, where they are, the style,"
    " the light and the composition. Name only what can be seen. Write one paragraph of at most 80 words, without an"
    " opening phrase such as 'The picture shows'."
)


class CaptionerConfig(Config):
    """How pictures are captioned."""

    endpoint: EndpointConfig
    prompt_file: str | None = Field(None, description="instead of the prompt that comes with this")
    quality: int = Field(90, ge=1, le=100, description="of the JPEG that the model is shown")


@dataclass(frozen=True)
class ModelCaption:
    """A caption, and what is recorded with it."""

    text: str
    model: str  # as the server names it
    prompt_sha256: str


class Captioner:
    """Asks the endpoint about each candidate's picture."""

    def __init__(self, config: CaptionerConfig) -> None:
        self.config = config
        self.prompt = read_prompt(config.prompt_file, PROMPT)
        self.prompt_sha256 = hashlib.sha256(self.prompt.encode()).hexdigest()
        self._client = ChatClient(config.endpoint)

    def caption(self, candidates: Iterable[Candidate]) -> Iterator[ModelCaption | Problem]:
        """One result per candidate, in order. A caption that was cut off at the length limit is a problem."""
        rows: list[str] = []

        def questions() -> Iterator[Question]:
            for candidate in candidates:
                rows.append(candidate.row)
                yield Question(self.prompt, (encode_jpeg(candidate.image, self.config.quality),))

        for answer in self._client.ask_all(questions()):
            yield self._result(rows.pop(0), answer)

    def _result(self, row: str, answer: Answer | EndpointFailure) -> ModelCaption | Problem:
        if isinstance(answer, EndpointFailure):
            return Problem(row, f"captioner_{answer.reason}", answer.detail)
        if answer.finish_reason == "length":
            return Problem(row, "captioner_cut_off", "the answer reached endpoint.max_tokens; raise it")
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
