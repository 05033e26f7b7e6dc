"""One self-contained page of a data set: its numbers, and some samples with their pictures."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from html import escape
from typing import Any

from data_prep.build.thumbnail import thumbnail
from data_prep.inspect.samples import LENIENT, Found
from data_prep.inspect.terminal import human_bytes, named_bins
from data_prep.page import bars, data, image, page
from dreamline.media.decode import decode
from dreamline.media.errors import MediaError

SIDE = 192  # px, longer side of a picture
SHOWN = 20  # values of a count
TINY = 96  # px; smaller pictures are shown larger
TEXT = 600  # letters of a text
TOLD = ("label", "bucket", "licence")  # columns under a sample

STYLE = """
.samples { display: flex; flex-wrap: wrap; gap: 14px; }
.sample { flex: 1 1 216px; max-width: 320px; border: 1px solid var(--line); border-radius: 6px; padding: 8px; }
.edit .sample { flex-basis: 420px; max-width: 640px; }
.sample, .broken { overflow-wrap: anywhere; }
.pictures { display: flex; flex-wrap: wrap; gap: 6px; align-items: flex-start; }
.pictures img { max-width: 100%; display: block; outline: 1px solid var(--line); }
.pictures img.tiny { width: 128px; image-rendering: pixelated; }
.pictures figcaption, .sample small { font-size: 11px; opacity: .7; max-width: 192px; }
.sample small { max-width: none; display: block; } .sample p { margin: 6px 0; }
.broken { border: 2px dashed #c33; color: #c33; padding: 8px; font-size: 12px; max-width: 176px; }
"""


def render(numbers: Mapping[str, Any], samples: Iterable[Found], seed: int) -> str:
    """The page.

    Args:
        numbers: what `summarise` gives.
        samples: to be shown; none is kept, only its small pictures.
        seed: they were drawn with.
    """
    groups: dict[str, list[str]] = {"t2i": [], "edit": []}
    for sample in samples:
        groups[sample.kind].append(_sample(sample))
    parts = [
        f"<h1>{escape(numbers['name'])}</h1>",
        f"<p>{numbers['num_samples']:,} samples in {numbers['num_shards']:,} shards, "
        f"{human_bytes(numbers['num_bytes'])}, at <code>{escape(numbers['target'])}</code><br>"
        f"fingerprint <code>{escape(numbers['fingerprint'])}</code></p>",
        _facts(numbers["facts"]),
        f"<h2>{sum(map(len, groups.values()))} samples, drawn with seed {seed}</h2>",
        *(_group(kind, found) for kind, found in groups.items() if found),
        "<h2>What is in it</h2>",
        '<div class="columns">',
        *(_part(name, _count_bars(values)) for name, values in numbers["counts"].items()),
        *([_part("rejected, by reason", bars(numbers["rejected"]))] if numbers["rejected"] else []),
        *(_part(name, _histogram(values)) for name, values in numbers["histograms"].items()),
        "</div>",
        data("numbers", numbers),
    ]
    return page(numbers["name"], parts, STYLE)


def _facts(facts: Mapping[str, Any]) -> str:
    rows = "".join(f"<tr><td>{escape(name)}</td><td>{escape(str(value))}</td></tr>" for name, value in facts.items())
    return f"<details><summary>what it says of itself</summary><table>{rows}</table></details>" if rows else ""


def _part(title: str, content: str) -> str:
    return f"<div><h3>{escape(title)}</h3>{content}</div>"


def _count_bars(values: Mapping[str, Mapping[str, int]]) -> str:
    counts = {name: entry["samples"] for name, entry in values.items()}
    more = f"<p>and {len(counts) - SHOWN} more</p>" if len(counts) > SHOWN else ""
    return bars(dict(list(counts.items())[:SHOWN])) + more


def _histogram(values: Mapping[str, Any]) -> str:
    missing = f", {values['missing']:,} without" if values["missing"] else ""
    told = f"min {values['min']:.6g}, mean {values['mean']:.6g}, max {values['max']:.6g}{missing}"
    return f"<p><small>{told}</small></p>{bars(dict(named_bins(values)))}"


def _group(kind: str, samples: Sequence[str]) -> str:
    return f'<div class="samples {kind}">{"".join(samples)}</div>'


def _sample(found: Found) -> str:
    pictures = "".join(_pictures(found))
    text = str(found.columns.get("text") or "")
    short = text if len(text) <= TEXT else f"{text[:TEXT]}…"
    told = [
        found.key,
        *(str(found.columns[name]) for name in TOLD if found.columns.get(name)),
    ]
    where = f"{found.shard}, row {found.row}"
    return (
        f'<div class="sample"><div class="pictures">{pictures}</div><p>{escape(short)}</p>'
        f'<small title="{escape(where)}">{escape(" · ".join(told))}</small></div>'
    )


def _pictures(found: Found) -> Iterator[str]:
    pictures = found.pictures()
    if not pictures:
        yield '<div class="broken">no picture</div>'
    for name, content in pictures.items():
        drawn, size = _draw(content)
        label = name.rpartition(".")[0] or name
        yield f"<figure>{drawn}<figcaption>{escape(label)}{escape(size)}</figcaption></figure>"


def _draw(content: bytes | str) -> tuple[str, str]:
    """A small picture and its size, or a box that says what is wrong with it."""
    if isinstance(content, str):
        return _broken(content), ""
    try:
        decoded = decode(content, LENIENT)
    except MediaError as error:
        return _broken(str(error)), ""
    height, width = decoded.pixels.shape[:2]
    return image(
        thumbnail(decoded.pixels, side=SIDE), "tiny" if max(width, height) < TINY else ""
    ), f", {width} x {height}"


def _broken(reason: str) -> str:
    return f'<div class="broken">broken: {escape(reason[:200])}</div>'
