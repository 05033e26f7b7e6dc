"""Charts of the report as inline SVG: no script; colours are the page's own, so they follow light and dark."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from markupsafe import Markup, escape

WIDTH, HEIGHT = 320, 150
LEFT, RIGHT, TOP, BOTTOM = 38, 8, 8, 20


@dataclass(frozen=True)
class Score:
    """A score in [0, 1] with its interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class _Axes:
    """A linear map of data ranges onto the plot area."""

    x: tuple[float, float]
    y: tuple[float, float]
    width: int
    height: int

    def place(self, x: float, y: float) -> tuple[float, float]:
        across = (x - self.x[0]) / ((self.x[1] - self.x[0]) or 1)
        up = (y - self.y[0]) / ((self.y[1] - self.y[0]) or 1)
        right, bottom = self.width - RIGHT, self.height - BOTTOM
        return round(LEFT + across * (right - LEFT), 1), round(bottom - up * (bottom - TOP), 1)


def curves(series: Mapping[str, Sequence[tuple[float, float]]], title: str) -> Markup:
    """Lines over optimiser steps: each series faint as it was measured, and strong as its running mean."""
    shown = {name: [point for point in points if math.isfinite(point[1])] for name, points in series.items()}
    shown = {name: points for name, points in shown.items() if len(points) > 1}
    if not shown:
        return Markup("")
    steps = [step for points in shown.values() for step, _ in points]
    values = sorted(value for points in shown.values() for _, value in points)
    bottom, top = values[0], values[min(len(values) - 1, int(0.995 * len(values)))]  # one early peak hides the rest
    axes = _Axes((min(steps), max(steps)), _rounded(bottom, max(top, bottom)), WIDTH, HEIGHT)
    parts = [_grid(axes, _ticks(*axes.y)), _step_labels(axes)]
    for number, points in enumerate(shown.values()):
        for kind, line in (("raw", points), ("smooth", _smooth(points))):
            limited = [axes.place(step, min(value, axes.y[1])) for step, value in line]
            path = " ".join(f"{x},{y}" for x, y in limited)
            parts.append(f'<polyline class="line {kind} tone-{number % 6}" points="{path}"/>')
    return _svg(parts, WIDTH, HEIGHT, f"{title}: {', '.join(shown)} over steps")


def journey(stages: Sequence[str], series: Mapping[str, Sequence[Score | None]]) -> Markup:
    """Scores stage by stage with their intervals; a stage that was not evaluated leaves a gap."""
    if not stages:
        return Markup("")
    width, height = 420, 230
    axes = _Axes((-0.35, len(stages) - 0.65), (0.0, 1.0), width, height)
    parts = [_grid(axes, [0.0, 0.25, 0.5, 0.75, 1.0], percent=True)]
    for place, stage in enumerate(stages):
        x, _ = axes.place(place, 0)
        parts.append(f'<text class="tick" x="{x}" y="{height - 5}" text-anchor="middle">{escape(stage)}</text>')
    for number, (name, scores) in enumerate(series.items()):
        known = [(at + 0.06 * (number - 0.5), score) for at, score in enumerate(scores) if score]
        path = " ".join("{},{}".format(*axes.place(at, score.value)) for at, score in known)
        parts.append(f'<polyline class="line smooth tone-{number}" points="{path}"/>')
        for at, score in known:
            x, low = axes.place(at, score.low)
            _, high = axes.place(at, score.high)
            _, y = axes.place(at, score.value)
            told = f"{name}: {score.value:.0%} ({score.low:.0%} to {score.high:.0%})"
            parts.append(
                f'<g class="tone-{number}"><title>{escape(told)}</title>'
                f'<line class="whisker" x1="{x}" x2="{x}" y1="{low}" y2="{high}"/>'
                f'<circle class="dot" cx="{x}" cy="{y}" r="4.5"/></g>'
            )
    return _svg(parts, width, height, "scores after each stage, with 95 % intervals")


def _svg(parts: Sequence[str], width: int, height: int, label: str) -> Markup:
    inside = "".join(parts)
    return Markup(f'<svg viewBox="0 0 {width} {height}" role="img" aria-label="{escape(label)}">{inside}</svg>')


def _grid(axes: _Axes, ticks: Sequence[float], percent: bool = False) -> str:
    lines = []
    for tick in ticks:
        x, y = axes.place(axes.x[0], tick)
        text = f"{tick:.0%}" if percent else f"{tick:.3g}"
        lines.append(f'<line class="grid" x1="{x}" x2="{axes.width - RIGHT}" y1="{y}" y2="{y}"/>')
        lines.append(f'<text class="tick" x="{LEFT - 5}" y="{y + 3.5}" text-anchor="end">{text}</text>')
    return "".join(lines)


def _step_labels(axes: _Axes) -> str:
    ends = ((axes.x[0], "start"), ((axes.x[0] + axes.x[1]) / 2, "middle"), (axes.x[1], "end"))
    bottom = axes.height - 5
    return "".join(
        f'<text class="tick" x="{axes.place(step, 0)[0]}" y="{bottom}" text-anchor="{anchor}">{step:,.0f}</text>'
        for step, anchor in ends
    )


def _ticks(low: float, high: float) -> list[float]:
    unit = _unit(high - low)
    return [unit * number for number in range(round(low / unit), round(high / unit) + 1)]


def _rounded(low: float, high: float) -> tuple[float, float]:
    """The smallest range of whole tick units around the values."""
    if high - low < 1e-9 * max(1.0, abs(high)):
        low, high = low - 0.5, high + 0.5
    unit = _unit(high - low)
    return math.floor(low / unit) * unit, math.ceil(high / unit) * unit


def _unit(span: float) -> float:
    """1, 2 or 5 times a power of ten, about a quarter of the span."""
    power = 10.0 ** math.floor(math.log10(span / 4))
    return next(power * factor for factor in (1, 2, 5, 10) if power * factor >= span / 4 * 0.999)


def _smooth(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Means over a centred window of about a tenth of the points."""
    reach = len(points) // 20
    windows = ((step, points[max(0, at - reach) : at + reach + 1]) for at, (step, _) in enumerate(points))
    return [(step, sum(value for _, value in window) / len(window)) for step, window in windows]
