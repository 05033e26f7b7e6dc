"""The filter bank: checks in order of cost, the first that fails gives the reason."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict

import numpy as np

from data_prep.edits.background import background_problems, preservation
from data_prep.edits.change import ChangeMask, change_mask, change_problems
from data_prep.edits.config import Change, EditChecksConfig
from data_prep.edits.foreground import foreground_mask
from data_prep.edits.integrity import instruction_problem, picture_problem
from data_prep.edits.pair import Pair, dilate
from data_prep.edits.quality import damage, quality_problems
from data_prep.edits.registration import register
from data_prep.edits.scores import score_problems
from data_prep.edits.type_rules import type_problems, type_signs
from data_prep.edits.verdict import EditVerdict, Mask, Pixels, Problem
from data_prep.edits.vocabulary import EditType, scope_of


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
        measures = dict(scores or {})
        found: list[Problem] = []
        problem = self._integrity(source, target, instruction, mask)
        if problem:
            return EditVerdict(*problem, measures, None, (problem[0],))
        for problem in self._problems(source, target, edit_type, mask, measures):
            found.append(problem)
            if not exhaustive:
                break
        foreground = None
        if not found and self.config.foreground is not None:
            foreground = foreground_mask([source], target, self.config.foreground)
            if foreground is None:
                found.append(("foreground_too_small", f"below {self.config.foreground.min_area} of the picture"))
            else:
                measures["foreground_area"] = float(foreground.mean())
        reason, detail = found[0] if found else (None, "")
        return EditVerdict(reason, detail, measures, foreground, tuple(name for name, _ in found))

    def _integrity(self, source: Pixels, target: Pixels, instruction: str, mask: Mask | None) -> Problem | None:
        problem = instruction_problem(instruction, self.config.integrity) or picture_problem(
            source, target, self.config.integrity.min_side
        )
        if problem is None and mask is not None and mask.shape != source.shape[:2]:
            return "mask_geometry", f"mask is {list(mask.shape)}, the pictures are {list(source.shape[:2])}"
        return problem

    def _problems(
        self, source: Pixels, target: Pixels, edit_type: EditType, mask: Mask | None, measures: dict[str, float]
    ) -> Iterator[Problem]:
        """What the configured checks find, one after the other; measures are filled on the way."""
        config, scope = self.config, scope_of(edit_type)
        if config.scores is not None:
            yield from score_problems(measures, config.scores)
        if config.registration is not None and scope != "unknown":
            motion = register(source, target)
            measures |= asdict(motion)
            if motion.agreement >= config.registration.min_agreement:
                if motion.shift > config.registration.max_shift:
                    yield "shifted", f"the picture moved by {motion.shift:.2f} px of 256"
                if abs(motion.zoom) > config.registration.max_zoom:
                    yield "zoomed", f"the picture is scaled by {1 + motion.zoom:.4f}"
        if all(part is None for part in (config.change, config.background, config.quality, config.types)):
            return
        pair = Pair(source, target, mask, config.side)
        change = change_mask(pair, config.change or Change())
        measures |= {f"change_{name}": value for name, value in asdict(change).items() if name != "mask"}
        if config.change is not None:
            yield from change_problems(change, edit_type, config.change)
        unchanged = self._unchanged(pair, change) if scope == "local" else None
        if config.background is not None and unchanged is not None and unchanged.any():
            kept = preservation(pair, unchanged)
            measures |= {f"background_{name}": value for name, value in asdict(kept).items()}
            yield from background_problems(kept, config.background)
        if config.quality is not None:
            enough = unchanged is not None and unchanged.mean() > 0.05
            found = damage(pair, unchanged if enough else None)
            measures |= asdict(found)
            yield from quality_problems(found, scope, config.quality)
        if config.types is not None:
            signs = type_signs(pair, change.mask)
            measures |= asdict(signs)
            yield from type_problems(signs, edit_type, config.types)

    @staticmethod
    def _unchanged(pair: Pair, change: ChangeMask) -> Mask:
        """What a local edit must leave alone: outside of the given mask, else of its own change, with a margin."""
        return np.asarray(~dilate(change.mask if pair.given is None else pair.given, pair.margin))
