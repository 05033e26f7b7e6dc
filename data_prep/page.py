"""Pieces of self-contained HTML pages: bars, grids of small pictures, data. Whatever goes in is escaped."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape
from typing import Any

STYLE = """
:root { color-scheme: light dark; --line: #8884; --bar: #4a7ebb; }
body { font: 15px/1.5 system-ui, sans-serif; max-width: 72rem; margin: 2rem auto; padding: 0 1rem; }
h2 { margin-top: 2.2rem; border-bottom: 1px solid var(--line); } code { font-size: 90%; overflow-wrap: anywhere; }
.columns { display: flex; flex-wrap: wrap; gap: 2rem; } .columns > div { flex: 1 1 20rem; }
table { border-collapse: collapse; width: 100%; } td { padding: 1px 8px 1px 0; vertical-align: middle; }
td.number { text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap; }
td.bar { width: 40%; } td.bar div { background: var(--bar); height: .7em; min-width: 1px; }
.grid { display: flex; flex-wrap: wrap; gap: 8px; } figure { margin: 0; max-width: 256px; }
figcaption { font-size: 11px; max-width: 128px; max-height: 4.5em; overflow: hidden; overflow-wrap: anywhere; }
"""


def page(title: str, parts: Sequence[str], style: str = "") -> str:
    """A page of parts that are HTML already; `style` goes behind the common one."""
    head = f'<meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>{escape(title)}</title>'
    body = "\n".join(parts)
    return (
        f'<!doctype html><html lang="en"><head>{head}<style>{STYLE}{style}</style></head><body>{body}</body></html>\n'
    )


def data(name: str, value: Any) -> str:
    """JSON for whoever reads the page by program."""
    text = json.dumps(value).replace("<", chr(92) + "u003c")
    return f'<script type="application/json" id="{escape(name)}">{text}</script>'


def bars(values: Mapping[str, int]) -> str:
    """A table of counts with bars as long as they are large."""
    top = max(values.values(), default=0) or 1
    rows = "".join(
        f'<tr><td>{escape(name)}</td><td class="number">{count:,}</td>'
        f'<td class="bar">{_bar(100 * count / top) if count else ""}</td></tr>'
        for name, count in values.items()
    )
    return f"<table>{rows}</table>" if rows else "<p>none</p>"


def _bar(percent: float) -> str:
    return f'<div style="width:{percent:.1f}%"></div>'


def image(content: bytes, name: str = "") -> str:
    """A JPEG inside the page; `name` is its class."""
    return f'<img alt="" class="{name}" src="data:image/jpeg;base64,{base64.b64encode(content).decode()}">'


def grid(shown: Sequence[tuple[bytes | None, str]]) -> str:
    """Small pictures with texts under them."""
    return f'<div class="grid">{"".join(_figures(shown))}</div>'


def _figures(shown: Sequence[tuple[bytes | None, str]]) -> Iterator[str]:
    for picture, text in shown:
        drawn = "" if picture is None else image(picture)
        yield f'<figure title="{escape(text)}">{drawn}<figcaption>{escape(text[:200])}</figcaption></figure>'
