"""The filter bank: checks in order of cost, the first that fails gives the reason."""

from __future__ import annotations

from collections.abc import Mapping

from data_prep.edits.config import EditChecksConfig
from data_prep.edits.integrity import instruction_problem, picture_problem
from data_prep.edits.verdict import EditVerdict, Mask, Pixels
from data_prep.edits.vocabulary import EditType


class EditChecks:
    """Judges edit triplets without weights. Holds no state but its configuration; may be used from many threads."""

    def __init__(self, config: EditChecksConfig) -> None:
        self.config = config

    def judge(
        self,
        source: Pixels,
        target: Pixels,
        instruction: str,
        edit_type: EditType = "other",
        mask: Mask | None = None,
        scores: Mapping[str, float] | None = None,
        exhaustive: bool = False,
    ) -> EditVerdict:
        """Judge one triplet.

        Args:
            source, target: RGB, uint8 [H, W, 3].
            edit_type: in our words, see `edit_type_of`.
            mask: bool [H, W], true where the edit may change something; None where the data set has none.
            scores: figures of models by name; they enter the measures.
            exhaustive: run all checks even after one has failed, for calibration.
        """
        problem = instruction_problem(instruction, self.config.integrity) or picture_problem(
            source, target, self.config.integrity.min_side
        )
        measures = dict(scores or {})
        if problem:
            return EditVerdict(problem[0], problem[1], measures, None, (problem[0],))
        return EditVerdict(None, "", measures, None)
