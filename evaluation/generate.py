"""Make one picture with a published folder: `python -m evaluation.generate --model DIR --prompt ... --out a.png`."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path

from PIL import Image, UnidentifiedImageError

from dreamline.model.generator import STUDENT, Generator, Sampling, is_student


def main() -> None:
    """Generate, or edit when there is an --image."""
    parser = argparse.ArgumentParser(description="Generate or edit one picture with a diffusers folder.")
    parser.add_argument("--model", type=Path, required=True, help="folder with a model_index.json")
    parser.add_argument("--prompt", required=True, help="what to draw, or the edit instruction")
    parser.add_argument("--image", type=Path, help="picture to edit")
    parser.add_argument("--out", type=Path, required=True, help="picture to write")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--steps", type=int, help="sampling steps (student 4, else 28)")
    parser.add_argument("--guidance-scale", type=float, help="on the text (student 1, else 3.5)")
    parser.add_argument("--image-guidance-scale", type=float, help="on the source (student 1, else 1.5)")
    parser.add_argument("--scale", type=int, default=1, help="enlarge the file by this whole factor, without smoothing")
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    if not (options.model / "model_index.json").is_file():
        sys.exit(f"{options.model}: no model_index.json there; give a diffusers folder")
    default = STUDENT if is_student(options.model) else Sampling()
    sampling = Sampling(
        num_steps=options.steps or default.num_steps,
        guidance_scale=_either(options.guidance_scale, default.guidance_scale),
        image_guidance_scale=_either(options.image_guidance_scale, default.image_guidance_scale),
    )
    sources = [read_image(options.image)] if options.image else None
    picture = Generator.load(options.model).pictures([options.prompt], [options.seed], sampling, sources)[0]
    image = Image.fromarray(picture)
    if options.scale > 1:
        image = image.resize((image.width * options.scale, image.height * options.scale), Image.Resampling.NEAREST)
    options.out.parent.mkdir(parents=True, exist_ok=True)
    image.save(options.out)
    told = {"image": str(options.out), "model": str(options.model), "steps": sampling.num_steps, "seed": options.seed}
    print(
        json.dumps(told)
        if options.json
        else f"{options.out} ({image.width}x{image.height}, {sampling.num_steps} steps)"
    )


def _either(given: float | None, default: float) -> float:
    return default if given is None else given


def read_image(path: Path) -> Image.Image:
    """A picture as RGB; ends the program with a clear message when it cannot be read."""
    try:
        return Image.open(path).convert("RGB")
    except (OSError, UnidentifiedImageError) as error:
        sys.exit(f"{path}: not a readable picture ({error})")


if __name__ == "__main__":
    main()
