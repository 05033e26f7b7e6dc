"""Scores of a vision-language model by a rubric of four questions, read strictly."""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

from data_prep.filters.candidate import Candidate
from data_prep.filters.captioner import read_prompt
from data_prep.filters.config import Rubric
from data_prep.filters.scorers import MISSING
from dreamline.endpoint import Answer, ChatClient, EndpointFailure, Question
from dreamline.media.jpeg import encode_jpeg

CRITERIA = ("compliance", "preservation", "realism", "quality")
HIGHEST = 10.0  # scores are in [0, 10]

EDIT_PROMPT = """The first picture was edited into the second with this instruction:
{text}

Score the edit from 0 (failed) to 10 (flawless) on each of these:
compliance: the second picture does all that the instruction asks for, and nothing else.
preservation: what the instruction does not name is unchanged.
realism: light, perspective and texture of the change fit the scene.
quality: no artefacts, blur, seams or broken shapes.

Answer with one JSON object and nothing else, as:
{"compliance": 0, "preservation": 0, "realism": 0, "quality": 0}"""

PICTURE_PROMPT = """This text is meant to describe the picture:
{text}

Score the pair from 0 (failed) to 10 (flawless) on each of these:
compliance: all that the text names is in the picture.
preservation: all that matters in the picture is in the text.
realism: light, perspective and texture are coherent.
quality: no artefacts, blur, watermark or broken shapes.

Answer with one JSON object and nothing else, as:
{"compliance": 0, "preservation": 0, "realism": 0, "quality": 0}"""


@dataclass(frozen=True)
class Unparsable:
    """Why an answer is no rubric."""

    detail: str


def parse(text: str) -> dict[str, float] | Unparsable:
    """The four scores of an answer: one JSON object of exactly these keys, bare or as one fenced block.

    Numbers in [0, 10] only: no strings, no booleans, no NaN, no key twice.
    """
    fenced = re.fullmatch(r"\s*```(?:json)?\s*(\{.*\})\s*```\s*", text, re.DOTALL)
    try:
        value = json.loads(fenced.group(1) if fenced else text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        return Unparsable(f"not JSON: {error}")
    if not isinstance(value, dict) or set(value) != set(CRITERIA):
        return Unparsable(f"must have the keys {', '.join(CRITERIA)}")
    for name, score in value.items():
        good = isinstance(score, int | float) and not isinstance(score, bool) and 0 <= score <= HIGHEST
        if not good:
            return Unparsable(f"{name}: {str(score)[:40]} is no number from 0 to {HIGHEST:g}")
    return {name: float(value[name]) for name in CRITERIA}


def geometric_mean(scores: Sequence[float]) -> float:
    """One bad score pulls it down, and 0 makes it 0."""
    return math.exp(sum(map(math.log, scores)) / len(scores)) if min(scores) > 0 else 0.0


class RubricScorer:
    """Scores of edits (both pictures and the instruction) or of pictures with their text, in [0, 10].

    A missing score is NaN, and `missing` counts why: no_text, no answer (as endpoint_timeout), unparsable.
    """

    def __init__(self, rule: Rubric) -> None:
        self.name = rule.name
        self.missing: Counter[str] = Counter()
        self._prompts = {
            "edit": read_prompt(rule.prompt_file, EDIT_PROMPT),
            "t2i": read_prompt(rule.prompt_file, PICTURE_PROMPT),
        }
        said = "\0".join([rule.endpoint.model, *self._prompts.values()])
        self.version = f"{rule.endpoint.model}-{hashlib.sha256(said.encode()).hexdigest()[:12]}"
        self._client = ChatClient(rule.endpoint)

    def score(self, batch: Sequence[Candidate]) -> dict[str, list[float]]:
        """The geometric mean under the scorer's name, and each criterion as `<name>_<criterion>`."""
        names = [self.name, *(f"{self.name}_{criterion}" for criterion in CRITERIA)]
        values = {name: [MISSING] * len(batch) for name in names}
        rows = [index for index, candidate in enumerate(batch) if (candidate.record.text or "").strip()]
        self.missing["no_text"] += len(batch) - len(rows)
        answers = self._client.ask_all(self._question(batch[index]) for index in rows)
        for index, answer in zip(rows, answers, strict=True):
            scores = self._scores(answer)
            if scores is not None:
                values[self.name][index] = geometric_mean(list(scores.values()))
                for criterion, score in scores.items():
                    values[f"{self.name}_{criterion}"][index] = score
        return values

    def _question(self, candidate: Candidate) -> Question:
        pictures = [candidate.image] if candidate.source is None else [candidate.source, candidate.image]
        prompt = self._prompts["t2i" if candidate.source is None else "edit"]
        text = prompt.replace("{text}", candidate.record.text or "")
        return Question(text, tuple(encode_jpeg(picture, 90) for picture in pictures))

    def _scores(self, answer: Answer | EndpointFailure) -> dict[str, float] | None:
        if isinstance(answer, EndpointFailure):
            self.missing[f"endpoint_{answer.reason}"] += 1
            return None
        scores = parse(answer.text)
        if isinstance(scores, Unparsable):
            self.missing["unparsable"] += 1
            return None
        return scores


def _once(pairs: list[tuple[str, object]]) -> dict[str, object]:
    if len({name for name, _ in pairs}) < len(pairs):
        raise ValueError("a key occurs twice")
    return dict(pairs)
