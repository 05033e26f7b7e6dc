"""The scene world: what can be drawn (`World`) and one drawing as a value (`Scene`).

A scene is a background and at most one object per cell of a square grid. Difficulty is configuration: the default
world is the demo's (32 px, 2x2 cells, three shapes), a richer one adds shapes, sizes, jitter and outlined objects.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any, Literal, get_args

from pydantic import Field, model_validator

from dreamline.config import Config

Shape = Literal["circle", "square", "triangle", "star", "diamond", "cross", "ring"]
Colour = Literal["red", "green", "blue", "yellow", "purple", "orange"]
Background = Literal["white", "grey", "black"]
Size = Literal["small", "normal", "large"]
Style = Literal["filled", "outline"]
Split = Literal["train", "eval"]

SHAPES: tuple[str, ...] = get_args(Shape)
STYLES: tuple[str, ...] = get_args(Style)

FILLED = "filled"  # the style of an object that names none
UNKNOWN = "unknown"  # what the detector answers for a shape, colour or background that it cannot name

# RGB, 0..255. Colours lie at least 0.4 of the unit cube's edge from each other, 0.5 from every background.
COLOURS: Mapping[str, tuple[int, int, int]] = {
    "red": (215, 20, 40),
    "green": (0, 180, 60),
    "blue": (30, 70, 230),
    "yellow": (250, 230, 50),
    "purple": (150, 20, 200),
    "orange": (250, 130, 10),
}
BACKGROUNDS: Mapping[str, tuple[int, int, int]] = {
    "white": (255, 255, 255),
    "grey": (128, 128, 128),
    "black": (0, 0, 0),
}

SIZE_FACTORS: Mapping[str, float] = {"small": 0.75, "normal": 1.0, "large": 1.25}  # times World.radius

STYLE_WORDS: Mapping[str, str] = {"filled": "filled", "outline": "outlined"}  # what an object is called

_ROW_NAMES = {2: ("top", "bottom"), 3: ("top", "middle", "bottom")}
_COL_NAMES = {2: ("left", "right"), 3: ("left", "middle", "right")}


class World(Config):
    """What scenes may hold and how large they are drawn. Lengths are pixels at `size` x `size`."""

    size: int = Field(32, ge=16, le=1024, description="side of the image, px")
    grid: int = Field(2, ge=2, le=3, description="cells per side")
    min_objects: int = Field(1, ge=1, description="fewest objects in a scene")
    max_objects: int = Field(3, ge=1, description="most objects in a scene")
    shapes: tuple[Shape, ...] = ("circle", "square", "triangle")
    colours: tuple[Colour, ...] = ("red", "green", "blue", "yellow", "purple", "orange")
    backgrounds: tuple[Background, ...] = ("white", "grey", "black")
    sizes: tuple[Size, ...] = ("normal",)
    styles: tuple[Style, ...] = ("filled",)  # of single objects
    radius: float = Field(6.8, gt=0, description="half the width of an object of size 'normal', px")
    jitter: float = Field(
        0.0, ge=0, description="largest shift of an object from the middle of its cell, px, steps of 0.5"
    )
    eval_share: float = Field(0.15, gt=0, lt=1, description="share of prompts and instructions kept for evaluation")
    held_out_share: float = Field(
        0.1, ge=0, le=0.5, description="share of pairs of (colour, shape) that never meet in a training scene"
    )

    @model_validator(mode="after")
    def _check(self) -> World:
        for name in ("shapes", "colours", "backgrounds", "sizes", "styles"):
            values = getattr(self, name)
            if not values or len(set(values)) != len(values):
                raise ValueError(f"{name} must name at least one value, each once; got {values}")
        if len(self.shapes) < 2 or len(self.colours) < 2:
            raise ValueError("shapes and colours need at least two values each, or nothing can be told apart")
        if not self.min_objects <= self.max_objects <= self.grid**2:
            raise ValueError(
                f"need min_objects <= max_objects <= grid^2, got {self.min_objects}, {self.max_objects}, {self.grid**2}"
            )
        if self.jitter % 0.5:
            raise ValueError(f"jitter must be a multiple of 0.5 px, got {self.jitter}")
        reach = self.radius * max(SIZE_FACTORS[size] for size in self.sizes) + self.jitter
        if reach > self.cell / 2:
            raise ValueError(
                f"objects reach {reach:.2f} px from the middle of cells {self.cell} px wide; lower radius or jitter"
            )
        return self

    @property
    def cell(self) -> int:
        """Side of a cell, px. When `grid` does not divide `size`, the rest is a margin (see `origin`)."""
        return self.size // self.grid

    @property
    def origin(self) -> int:
        """Left and upper margin before the first cell, px."""
        return (self.size - self.cell * self.grid) // 2

    def centre(self, row: int, col: int) -> tuple[float, float]:
        """Middle (x, y) of a cell, px at `size`."""
        return self.origin + (col + 0.5) * self.cell, self.origin + (row + 0.5) * self.cell


@dataclass(frozen=True)
class SceneObject:
    """One object. `dx`, `dy` (px at `World.size`) are where in its cell it is drawn; they do not count for equality."""

    shape: str
    colour: str
    row: int
    col: int
    size: str = "normal"
    dx: float = field(default=0.0, compare=False)
    dy: float = field(default=0.0, compare=False)
    style: str = FILLED

    @property
    def cell(self) -> tuple[int, int]:
        """(row, column), counted from the top left."""
        return self.row, self.col

    @property
    def look(self) -> tuple[str, str]:
        """(colour, shape): the attribute combination that held-out pairs are made of."""
        return self.colour, self.shape


@dataclass(frozen=True)
class Scene:
    """Objects (kept sorted by cell) and background.

    Raises:
        ValueError: two objects in one cell.
    """

    objects: tuple[SceneObject, ...]
    background: str

    def __post_init__(self) -> None:
        ordered = tuple(sorted(self.objects, key=lambda item: item.cell))
        if len({item.cell for item in ordered}) != len(ordered):
            raise ValueError(f"two objects in one cell: {ordered}")
        object.__setattr__(self, "objects", ordered)

    def at(self, row: int, col: int) -> SceneObject | None:
        """The object in a cell, or None."""
        return next((item for item in self.objects if item.cell == (row, col)), None)

    def to_json(self) -> dict[str, Any]:
        """A plain dict for `json.dumps`. Its `style` is that of all objects that name none."""
        objects = [asdict(item) for item in self.objects]
        for item in objects:
            if item["style"] == FILLED:
                del item["style"]
        return {"objects": objects, "background": self.background, "style": FILLED}

    @classmethod
    def from_json(cls, value: Mapping[str, Any]) -> Scene:
        """Inverse of `to_json`."""
        objects = tuple(SceneObject(**{"style": value["style"], **item}) for item in value["objects"])
        return cls(objects, value["background"])


def cell_name(row: int, col: int, grid: int) -> str:
    """Plain words for a cell: 'top left', 'middle right', 'bottom middle', 'centre'."""
    vertical, horizontal = _ROW_NAMES[grid][row], _COL_NAMES[grid][col]
    return "centre" if vertical == horizontal else f"{vertical} {horizontal}"


def name_look(noun: str, colour: str | None, size: str | None, style: str | None) -> str:
    """What is stated of an object, in the order of English: 'small outlined red star'."""
    return " ".join(word for word in (size, STYLE_WORDS.get(style or ""), colour, noun) if word)


def with_article(words: str) -> str:
    """'red circle' -> 'a red circle', 'orange circle' -> 'an orange circle'."""
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
