"""Row filters: rules on one picture and its text. Each is built from its rule in the configuration.

Those that look at pixels look at an edit's target; its source is the edit checks' affair.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from data_prep.filters import captions, pixels
from data_prep.filters.candidate import Candidate, RowFilter
from data_prep.filters.config import Aspect, Blur, Caption, Exposure, Flat, Licence, Resolution, RowRule, Text
from data_prep.record import Problem
from dreamline.config import ConfigError
from dreamline.storage import read_bytes

Objection = tuple[str, str]  # reason, detail


@dataclass(frozen=True)
class Rule:
    """A row filter made of a function that looks at one candidate."""

    name: str
    objection: Callable[[Candidate], Objection | None]

    def judge(self, batch: Sequence[Candidate]) -> list[Problem | None]:
        """One verdict per candidate."""
        found = [self.objection(candidate) for candidate in batch]
        return [item and candidate.problem(*item) for candidate, item in zip(batch, found, strict=True)]


def open_row_filters(rules: Sequence[RowRule]) -> list[RowFilter]:
    """The row filters of a configuration, in its order.

    Raises:
        ConfigError: a file that a rule names is missing.
    """
    return [Rule(rule.kind, _objection(rule)) for rule in rules]


def _objection(rule: RowRule) -> Callable[[Candidate], Objection | None]:
    match rule:
        case Resolution():
            return lambda candidate: _resolution(rule, candidate)
        case Aspect():
            return lambda candidate: _aspect(rule, candidate)
        case Caption():
            phrases = (*rule.banned, *_lines(rule.banned_file))
            return lambda candidate: caption_objection(rule, candidate.record.text, phrases)
        case Blur():
            return lambda candidate: _blur(rule, candidate)
        case Exposure():
            return lambda candidate: _exposure(rule, candidate)
        case Flat():
            return lambda candidate: _flat(rule, candidate)
        case Text():
            return lambda candidate: _text(rule, candidate)
        case Licence():
            return lambda candidate: _licence(rule, candidate)


def _resolution(rule: Resolution, candidate: Candidate) -> Objection | None:
    width, height = candidate.width, candidate.height
    size = f"{width} x {height} px"
    if min(width, height) < rule.min_side:
        return "too_small", f"{size}: a side is below {rule.min_side}"
    if width * height < rule.min_pixels:
        return "too_small", f"{size}: less than {rule.min_pixels} pixels"
    if rule.max_side is not None and max(width, height) > rule.max_side:
        return "too_large", f"{size}: a side is above {rule.max_side}"
    return None


def _aspect(rule: Aspect, candidate: Candidate) -> Objection | None:
    long, short = max(candidate.width, candidate.height), min(candidate.width, candidate.height)
    if long > rule.max_ratio * short:
        return "aspect", f"{candidate.width} x {candidate.height} px: longer than {rule.max_ratio:g} to 1"
    return None


def caption_objection(rule: Caption, text: str | None, phrases: Sequence[str] = ()) -> Objection | None:
    """What a caption rule has against a text; `phrases` are all the banned ones. Personal data is not repeated."""
    if text is None or not text.strip():
        return ("caption_missing", "no text") if rule.on_missing == "reject" else None
    num_words, num_chars = len(captions.words(text)), len(text.strip())
    if num_words < rule.min_words or num_chars < rule.min_chars:
        return "caption_short", f"{num_words} words, {num_chars} characters"
    if num_words > (rule.max_words or num_words) or num_chars > (rule.max_chars or num_chars):
        return "caption_long", f"{num_words} words, {num_chars} characters"
    if rule.scripts and (share := captions.script_share(text, rule.scripts)) < rule.min_script_share:
        return "caption_script", f"{share:.0%} of the letters are {' or '.join(rule.scripts)}"
    for pattern in rule.reject:
        if (found := captions.find(pattern, text)) is not None:
            private = pattern in ("email", "phone", "card", "ip")
            return f"caption_{pattern}", f"{len(found)} characters of it" if private else f"{found[:60]!r}"
    if rule.max_repeated < 1 and (share := captions.repeated_share(text, rule.repeat_words)) > rule.max_repeated:
        return "caption_repeats", f"{share:.0%} of its {rule.repeat_words}-grams are repeated"
    if (phrase := captions.banned(text, phrases)) is not None:
        return "caption_banned", f"{phrase!r}"
    return None


def _blur(rule: Blur, candidate: Candidate) -> Objection | None:
    value = pixels.sharpness(pixels.luma(candidate.image))
    return ("blur", f"sharpness {value:.1f} is below {rule.min_sharpness:g}") if value < rule.min_sharpness else None


def _exposure(rule: Exposure, candidate: Candidate) -> Objection | None:
    grey = pixels.luma(candidate.image)
    clipped, bright, contrast = pixels.clipped(grey), pixels.brightness(grey), pixels.contrast(grey)
    if bright < rule.min_brightness:
        return "too_dark", f"brightness {bright:.3f} is below {rule.min_brightness:g}"
    if bright > rule.max_brightness:
        return "too_bright", f"brightness {bright:.3f} is above {rule.max_brightness:g}"
    if clipped > rule.max_clipped:
        return "clipped", f"{clipped:.0%} of the pixels are black or white"
    if contrast < rule.min_contrast:
        return "low_contrast", f"contrast {contrast:.3f} is below {rule.min_contrast:g}"
    return None


def _flat(rule: Flat, candidate: Candidate) -> Objection | None:
    grey = pixels.luma(candidate.image)
    bits, plain = pixels.entropy(grey), pixels.flatness(grey)
    if bits < rule.min_entropy:
        return "flat", f"entropy {bits:.2f} bits is below {rule.min_entropy:g}"
    if plain > rule.max_flatness:
        return "flat", f"{plain:.0%} of the cells are plain"
    return None


def _text(rule: Text, candidate: Candidate) -> Objection | None:
    share = pixels.text_share(pixels.luma(candidate.image))
    return ("text", f"about {share:.0%} of the picture is text") if share > rule.max_share else None


def _licence(rule: Licence, candidate: Candidate) -> Objection | None:
    licence = candidate.record.provenance.licence
    if licence is None or not licence.strip():
        return ("licence_missing", "the source names none") if rule.on_missing == "reject" else None
    if any(_matches(licence, pattern) for pattern in rule.deny):
        return "licence", f"{licence[:80]!r} is denied"
    if rule.allow and not any(_matches(licence, pattern) for pattern in rule.allow):
        return "licence", f"{licence[:80]!r} is not among the allowed ones"
    return None


def _matches(licence: str, pattern: str) -> bool:
    plain, wanted = " ".join(licence.casefold().split()), " ".join(pattern.casefold().split())
    return plain.startswith(wanted[:-1]) if wanted.endswith("*") else plain == wanted


def _lines(path: str | None) -> tuple[str, ...]:
    if path is None:
        return ()
    try:
        text = read_bytes(path).decode("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(
            f"banned_file: {path}: cannot be read: {error}; give a text file in UTF-8 with one phrase per line"
        ) from None
    return tuple(line.strip() for line in text.splitlines() if line.strip())
