"""`dreamline data inspect`: the numbers of a data set, a page with some of its samples, or one sample by its key."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from data_prep.inspect.gallery import render as to_html
from data_prep.inspect.numbers import summarise
from data_prep.inspect.samples import describe, draw, find, write_pictures
from data_prep.inspect.target import open_target
from data_prep.inspect.terminal import render as to_text
from data_prep.inspect.terminal import render_sample
from dreamline.config import ConfigError
from dreamline.storage import write_text


def inspect(
    location: str, html: Path | None = None, num: int = 24, seed: int = 0, default_page: bool = False
) -> tuple[dict[str, Any], str]:
    """Sum up a data set.

    Args:
        location: folder or s3:// prefix.
        html: where to write a page with samples.
        num: samples on the page.
        seed: of the choice.
        default_page: without `html`, write the page to inspect-<name>.html in the working directory.

    Returns:
        The numbers of `summarise` with `page`, where the page is or None; and the same as text.

    Raises:
        ConfigError: there is no data set, or no pictures to show, or `html` is a folder.
    """
    target = open_target(location)
    numbers = summarise(target)
    if html is None and default_page and target.type != "encoded":
        html = Path(f"inspect-{re.sub(r'[^A-Za-z0-9._-]+', '-', target.name).strip('.-') or 'data'}.html")
    text = to_text(numbers)
    if html is not None:
        if html.is_dir():
            raise ConfigError(f"{html}: is a folder; name the file that the page goes to")
        write_text(html, to_html(numbers, draw(target.index, num, seed), seed), durable=False)
        text += f"\npage with samples: {html}\n"
    return {**numbers, "page": None if html is None else str(html)}, text


def inspect_sample(location: str, key: str, out: Path | None = None) -> tuple[dict[str, Any], str]:
    """Describe one sample, as JSON and as text.

    Args:
        location: folder or s3:// prefix.
        key: of the sample.
        out: folder to write its pictures to.

    Raises:
        ConfigError: no such data set or sample, or `out` is a file.
    """
    if out is not None and out.exists() and not out.is_dir():
        raise ConfigError(f"{out}: is no folder; name the one that the pictures go to")
    index = open_target(location).index
    found = find(index, key)
    written = write_pictures(found, out) if out is not None else []
    told = {**describe(found, index.folder), "written": written}
    return told, render_sample(told)
