"""Where samples come from: any numbered sequence of them that can also say what is wrong with one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from dreamline.data.sample import Kind, Pixels, Sample, decode_png, encode_png
from dreamline.scenes.captions import sample_captioned_scene
from dreamline.scenes.detector import detect_many
from dreamline.scenes.edits import sample_edit
from dreamline.scenes.render import render
from dreamline.scenes.sampling import has_held_out_pair, looks_of, rng_for, split_of
from dreamline.scenes.world import Scene, World


class Source(Protocol):
    """A numbered sequence of samples of one kind and size. Sample i depends on i alone; a source can be pickled."""

    @property
    def kind(self) -> Kind:
        """Images with captions, or edits."""
        ...

    @property
    def name(self) -> str:
        """Of the data set; no dots."""
        ...

    @property
    def num_samples(self) -> int:
        """Samples have the numbers 0..num_samples-1."""
        ...

    @property
    def resolution(self) -> tuple[int, int]:
        """Width and height of all images, px."""
        ...

    def sample(self, index: int) -> Sample:
        """Sample number `index`; its key is unique."""
        ...

    def problems(self, samples: Sequence[Sample]) -> list[str | None]:
        """For each sample the reason to reject it (a short word that counts can be kept by), or None."""
        ...

    def traits(self, sample: Sample) -> Mapping[str, Sequence[str]]:
        """What the statistics of a data set count, by histogram."""
        ...


@dataclass(frozen=True)
class SceneSource:
    """Training samples of the scene world."""

    kind: Kind
    world: World
    name: str
    num_samples: int
    seed: int
    side: int  # px

    @property
    def resolution(self) -> tuple[int, int]:
        """Width and height of the images, px."""
        return self.side, self.side

    def sample(self, index: int) -> Sample:
        """A captioned scene, or an edit of a scene."""
        rng = rng_for(self.seed, index, f"data:{self.kind}")
        key = f"{self.name}-{self.kind}-{index:08d}"
        if self.kind == "t2i":
            scene, caption = sample_captioned_scene(self.world, rng, "train")
            facts = {"scene": scene.to_json(), "stated": caption.facts.to_json()}
            return Sample(
                key, "t2i", caption.text, caption.category, facts, self.side, self.side, image=self._draw(scene)
            )
        edit = sample_edit(self.world, rng, "train")
        return Sample(
            key,
            "edit",
            edit.instruction,
            edit.type,
            {"source": edit.source.to_json(), "target": edit.target.to_json()},
            self.side,
            self.side,
            image=self._draw(edit.target),
            source=self._draw(edit.source),
        )

    def problems(self, samples: Sequence[Sample]) -> list[str | None]:
        """Check what will be written, not what was meant.

        Reasons: `unreadable` or `size` (of a picture), `picture` (does not show its scene), `no_change`, `eval_text` (a
        prompt kept for evaluation), `held_out` (a scene with attributes kept for evaluation).
        """
        pictures = [(content, scene) for sample in samples for content, scene in self._pictures(sample)]
        decoded = [self._decode(content) for content, _ in pictures]
        readable = [pixels for pixels in decoded if not isinstance(pixels, str)]
        shown = iter(detect_many(np.stack(readable), self.world)) if readable else iter(())
        wrong: list[str | None] = []
        for pixels, (_, scene) in zip(decoded, pictures, strict=True):
            if isinstance(pixels, str):
                wrong.append(pixels)
            else:
                wrong.append(None if next(shown) == scene else "picture")
        per_sample = len(pictures) // len(samples) if samples else 1
        groups = [wrong[i : i + per_sample] for i in range(0, len(wrong), per_sample)]
        return [
            next((reason for reason in group if reason), None) or self._content_problem(sample)
            for group, sample in zip(groups, samples, strict=True)
        ]

    def traits(self, sample: Sample) -> Mapping[str, Sequence[str]]:
        """Category or edit type, and what the picture (the target) shows."""
        scene = self._pictures(sample)[-1][1]
        return {
            "label": [sample.label],
            "shape": [item.shape for item in scene.objects],
            "colour": [item.colour for item in scene.objects],
            "background": [scene.background],
            "num_objects": [str(len(scene.objects))],
        }

    def _draw(self, scene: Scene) -> bytes:
        return encode_png(render(scene, self.world, self.side))

    def _decode(self, content: bytes) -> Pixels | str:
        """Pixels of a picture, or what is wrong with it."""
        try:
            pixels = decode_png(content)
        except OSError:
            return "unreadable"
        return pixels if pixels.shape == (self.side, self.side, 3) else "size"

    def _pictures(self, sample: Sample) -> list[tuple[bytes, Scene]]:
        """The pictures of a sample and what they must show; the (target) image last."""
        if sample.source is None:
            return [(sample.image, Scene.from_json(sample.facts["scene"]))]
        return [
            (sample.source, Scene.from_json(sample.facts["source"])),
            (sample.image, Scene.from_json(sample.facts["target"])),
        ]

    def _content_problem(self, sample: Sample) -> str | None:
        scenes = [scene for _, scene in self._pictures(sample)]
        if len(scenes) == 2 and scenes[0] == scenes[1]:
            return "no_change"
        if split_of(sample.text, self.world) == "eval":
            return "eval_text"
        if any(has_held_out_pair(looks_of(scene), self.world) for scene in scenes):
            return "held_out"
        return None
