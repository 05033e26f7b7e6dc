"""The numbers of a data set as text, with bars, for a terminal."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

WIDTH = 30  # characters of the longest bar
NAMES = 28  # of a value's name
SHOWN = 12  # values of a count
_EIGHTHS = " ▏▎▍▌▋▊▉█"


def render(numbers: Mapping[str, Any]) -> str:
    """What `summarise` gives, as text of some 80 characters a line."""
    lines = [*_head(numbers), *_counts(numbers), *_histograms(numbers)]
    return "".join(f"{line.rstrip()}\n" for line in lines)


def render_sample(found: Mapping[str, Any]) -> str:
    """What `describe` gives, as text."""
    lines = [f"{found['key']}: {found['kind']}, row {found['row']}", f"in {found['shard']}", "", "members"]
    for member in found["members"]:
        picture = found["pictures"].get(member["name"], {})
        told = f"{picture['format']} {picture['width']} x {picture['height']}" if "format" in picture else ""
        told = f"broken: {picture['broken']}" if "broken" in picture else told
        lines.append(f"  {member['name']:<20} {member['size']:>12,} bytes at {member['offset']:<14} {told}")
    for title in ("texts", "columns"):
        lines += ["", title]
        for name, value in found[title].items():
            shown = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            lines += f"  {name}: {shown}".split("\n")
    lines += [f"written: {path}" for path in found["written"]]
    return "".join(f"{plain(line).rstrip()}\n" for line in lines)


def human_bytes(size: float) -> str:
    """Bytes in decimal units."""
    for unit in ("B", "kB", "MB", "GB"):
        if size < 1000:
            return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"
        size /= 1000
    return f"{size:.1f} TB"


def _head(numbers: Mapping[str, Any]) -> Iterator[str]:
    kinds = {"scenes": "scene data set", "build": "build", "webdataset": "indexed tars", "encoded": "encoded samples"}
    yield f"{plain(numbers['name'])}: {kinds[numbers['type']]} at {plain(numbers['target'])}"
    yield (
        f"{numbers['num_samples']:,} samples in {numbers['num_shards']:,} shards, {human_bytes(numbers['num_bytes'])}; "
        f"fingerprint {numbers['fingerprint'][:12]}"
    )
    for name, value in numbers["facts"].items():
        if isinstance(value, Mapping):
            for key, item in value.items():
                yield f"{name}: {plain(str(key))}: {plain(str(item))}"
        else:
            yield f"{name.removeprefix('num_').replace('_', ' ')}: {plain(str(value))}"


def _counts(numbers: Mapping[str, Any]) -> Iterator[str]:
    for name, values in numbers["counts"].items():
        yield from _section(name)
        shown = list(values.items())[:SHOWN]
        top = max((entry["samples"] for _, entry in shown), default=0)
        for value, entry in shown:
            size = f"  {human_bytes(entry['bytes']):>9}" if "bytes" in entry else ""
            yield _line(value, entry["samples"], top) + size
        if len(values) > SHOWN:
            rest = [entry["samples"] for entry in list(values.values())[SHOWN:]]
            yield f"  and {len(rest)} more with {sum(rest):,} samples"
    if numbers["rejected"]:
        yield from _section("rejected, by reason")
        rejected = sorted(numbers["rejected"].items(), key=lambda item: -item[1])
        yield from (_line(reason, count, rejected[0][1]) for reason, count in rejected)


def _histograms(numbers: Mapping[str, Any]) -> Iterator[str]:
    for name, values in numbers["histograms"].items():
        missing = f", {values['missing']:,} without" if values["missing"] else ""
        least, mean, most = (f"{values[key]:.6g}" for key in ("min", "mean", "max"))
        yield from _section(f"{name} (min {least}, mean {mean}, max {most}{missing})")
        top = max(values["counts"])
        yield from (_line(bin_name, count, top) for bin_name, count in named_bins(values))


def _bin_name(edges: Sequence[float | None], number: int) -> str:
    """`low - high` of a bin; of whole numbers one apart the number itself."""
    low, high = edges[number], edges[number + 1]
    if high is None:
        return f">= {low:g}"
    if low is not None and high - low == 1 and low == int(low):
        return f"{low:g}"
    return f"< {high:g}" if number == 0 and edges[-1] is None else f"{low:g} - {high:g}"


def named_bins(values: Mapping[str, Any]) -> Iterator[tuple[str, int]]:
    """Name and count of the bins of a histogram; empty ones beside each other are one, those at the ends none."""
    counts = values["counts"]
    found = [number for number, count in enumerate(counts) if count]
    for before, number in zip([found[0], *found], found, strict=False):
        if number - before == 2:
            yield _bin_name(values["edges"], number - 1), 0
        elif number - before > 2:
            low, high = values["edges"][before + 1], values["edges"][number]
            yield f"{low:g} - {high:g}", 0
        yield _bin_name(values["edges"], number), counts[number]


def _section(title: str) -> tuple[str, str]:
    return "", plain(title)


def _line(name: str, count: int, top: int) -> str:
    shown = plain(name)
    shown = shown if len(shown) <= NAMES else f"{shown[: NAMES - 1]}…"
    eighths = max(1, round(8 * WIDTH * count / top)) if count and top else 0
    bar = _EIGHTHS[8] * (eighths // 8) + _EIGHTHS[eighths % 8].strip()
    return f"  {shown:<{NAMES}} {count:>11,}  {bar:<{WIDTH}}"


def plain(text: str) -> str:
    """Without control characters, which a terminal would obey."""
    return "".join(letter if letter.isprintable() else "�" for letter in text)
