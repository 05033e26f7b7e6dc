"""Rules on captions and instructions: length, script, scraps of the web, repetition, banned words, personal data."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache
from typing import Literal

Pattern = Literal["url", "html", "placeholder", "filename", "email", "phone", "card", "ip"]

# Writing systems by the first word of a letter's Unicode name; Japanese text mixes the first three.
SCRIPTS: Mapping[str, tuple[str, ...]] = {
    "latin": ("LATIN", "FULLWIDTH"),
    "han": ("CJK",),
    "kana": ("HIRAGANA", "KATAKANA", "KATAKANA-HIRAGANA", "HALFWIDTH"),
    "hangul": ("HANGUL",),
    "cyrillic": ("CYRILLIC",),
    "greek": ("GREEK",),
    "arabic": ("ARABIC",),
    "hebrew": ("HEBREW",),
    "devanagari": ("DEVANAGARI",),
    "thai": ("THAI",),
}
Script = Literal["latin", "han", "kana", "hangul", "cyrillic", "greek", "arabic", "hebrew", "devanagari", "thai"]

_ENDINGS = "jpe?g|png|gif|webp|bmp|tiff?|svg|heic|avif|pdf|html?|php"
_URL = re.compile(
    r"(?i)\b(?:https?://|ftp://|www\.)\S+|(?<![\w@.-])(?:[a-z0-9-]{1,63}\.){1,4}(?:com|net|org|info|io|co\.uk)\b"
)
_HTML = re.compile(r"(?i)</?[a-z][a-z0-9]*(?:\s[^<>]{0,200})?/?>|&(?:[a-z]{2,8}|#\d{1,6});|\[/?(?:img|url|b|i)\]")
_FILENAME = re.compile(
    rf"(?i)^\S*\.(?:{_ENDINGS})$"  # photo-12.jpg
    rf"|\b[\w-]{{1,100}}\.(?:{_ENDINGS})\b"
    r"|^(?:img|dsc|dscn|dscf|pict?|image|photo|screenshot|scan|thumb|p\d{3,})[\s_-]*\d[\d\s_x-]*$"  # IMG_1234, DSC 0042
    r"|^[0-9a-f]{16,}$|^[\d\s_x.-]+$"  # a hash; only digits
)
_PLACEHOLDER = re.compile(
    r"(?i)^\W*(?:image|images|picture|photo|photograph|untitled|no (?:title|image|caption|description|alt)( available)?"
    r"|image (?:not available|coming soon)|default|placeholder|thumbnail|alt(?: text)?|caption|title|icon|logo"
    r"|banner|loading|click (?:here|to enlarge|for details)|null|none|nan|n/?a|undefined|unknown|test)\W*$"
    r"|^\W*(?:lorem ipsum|image may contain)\b"
)
_EMAIL = re.compile(r"(?i)\b[a-z0-9._%+-]{1,64}@[a-z0-9-]{1,63}(?:\.[a-z0-9-]{1,63}){0,4}\.[a-z]{2,24}\b")
_PHONE = re.compile(r"(?<![\w.])(?:\+|00)?\(?\d{1,4}\)?(?:[\s./-]?\(?\d{2,5}\)?){2,5}(?![\w.]?\d)")
_CARD = re.compile(r"(?<!\d)\d(?:[ -]?\d){12,18}(?!\d)")
_IP = re.compile(r"(?<![\d.])(?:(?:25[0-5]|2[0-4]\d|1?\d?\d)\.){3}(?:25[0-5]|2[0-4]\d|1?\d?\d)(?![\d.])")


def words(text: str) -> list[str]:
    """Words in lower case without punctuation; of scripts without spaces one word per character."""
    return re.findall(r"[぀-ヿ㐀-鿿豈-﫿]|[^\W_぀-ヿ㐀-鿿豈-﫿]+", unicodedata.normalize("NFKC", text).casefold())


def script_share(text: str, scripts: Sequence[str]) -> float:
    """Share of the letters that belong to the scripts, in [0, 1]; 1 for a text without letters."""
    letters = [letter for letter in text if letter.isalpha()]
    prefixes = {prefix for script in scripts for prefix in SCRIPTS[script]}
    return sum(_prefix(letter) in prefixes for letter in letters) / len(letters) if letters else 1.0


def repeated_share(text: str, length: int) -> float:
    """Share of the n-grams of `length` words that occurred before in the text, in [0, 1]; 0 for shorter texts."""
    tokens = words(text)
    grams = Counter(tuple(tokens[start : start + length]) for start in range(len(tokens) - length + 1))
    total = sum(grams.values())
    return 1 - len(grams) / total if total else 0.0


def banned(text: str, phrases: Sequence[str]) -> str | None:
    """The first of the phrases that occurs in the text, as whole words and in any case."""
    flat = f" {' '.join(words(text))} "
    return next((phrase for phrase in phrases if (inner := " ".join(words(phrase))) and f" {inner} " in flat), None)


def find(pattern: Pattern, text: str) -> str | None:
    """What in the first 10,000 characters of the text matches a named pattern, or None."""
    return _FINDERS[pattern](text[:10_000].strip())


@lru_cache(maxsize=65536)
def _prefix(letter: str) -> str:
    return unicodedata.name(letter, "?").split(" ")[0]


def _search(pattern: re.Pattern[str]) -> Callable[[str], str | None]:
    return lambda text: found.group() if (found := pattern.search(text)) else None


def _phone(text: str) -> str | None:
    """A run of 9 to 15 digits (E.164) with a plus sign or separators: plain numbers and years are none."""
    for found in _PHONE.finditer(text):
        digits = sum(letter.isdigit() for letter in found.group())
        grouped = len(re.findall(r"\d+", found.group())) >= 3 or found.group().startswith(("+", "00"))
        if 9 <= digits <= 15 and grouped:
            return found.group()
    return None


def _card(text: str) -> str | None:
    """A number of 13 to 19 digits with a right check digit (ISO/IEC 7812-1, Luhn)."""
    for found in _CARD.finditer(text):
        digits = [int(letter) for letter in reversed(found.group()) if letter.isdigit()]
        doubled = [sum(divmod(2 * digit, 10)) for digit in digits[1::2]]
        if (sum(digits[::2]) + sum(doubled)) % 10 == 0 and any(digits):
            return found.group()
    return None


_FINDERS: Mapping[Pattern, Callable[[str], str | None]] = {
    "url": _search(_URL),
    "html": _search(_HTML),
    "placeholder": _search(_PLACEHOLDER),
    "filename": _search(_FILENAME),
    "email": _search(_EMAIL),
    "phone": _phone,
    "card": _card,
    "ip": _search(_IP),
}
