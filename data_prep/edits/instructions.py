"""Likeness of instructions: a normal form, MinHash signatures, and instructions that undo others."""

from __future__ import annotations

import hashlib
import re
import unicodedata
from dataclasses import dataclass
from functools import cache
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from data_prep.edits.vocabulary import EditType

Signature = npt.NDArray[np.uint64]  # [NUM_HASHES]
NUM_HASHES = 32

_EMPTY_WORDS = frozenset({"a", "an", "the", "please", "can", "could", "you"})
_COLOURS = (
    r"(?:dark |light |bright |pale )?"
    r"(?:red|green|blue|yellow|orange|purple|violet|pink|brown|black|white|gr[ae]y|cyan|magenta|teal|gold|golden|silver)"
)
# Words that make a thing depend on what only one of the two pictures shows.
_BOUND = re.compile(
    r"\b(it|its|them|their|his|her|this|that|these|those|all|every|each|both|other|another|another's|same|one|rest"
    r"|some|any|more|everything|instead|but|and|then|so)\b|['’]s\b|[,;:.!?].*\w|\d"
)


def normal_form(instruction: str) -> str:
    """Lower-case words without punctuation, articles and politeness; equal for wordings that say the same."""
    words = re.findall(r"\w+", unicodedata.normalize("NFKC", instruction).casefold())
    return " ".join(word for word in words if word not in _EMPTY_WORDS)


def pieces(instruction: str) -> frozenset[str]:
    """Words and word pairs of the normal form; never empty."""
    words = normal_form(instruction).split()
    return frozenset({*words, *(" ".join(pair) for pair in pairwise(words))} or {""})


def minhash(instruction: str) -> Signature:
    """Signature of the words and word pairs of the normal form; the share of equal entries estimates `similarity`."""
    digests = (hashlib.blake2b(piece.encode(), digest_size=8).digest() for piece in sorted(pieces(instruction)))
    hashes = np.array([int.from_bytes(digest, "little") for digest in digests], np.uint64)
    factors, offsets = _coefficients()
    mixed: Signature = hashes[:, None] * factors + offsets  # modulo 2^64
    return np.asarray(mixed.min(0))


def similarity(first: str, second: str) -> float:
    """Jaccard similarity of the pieces of two instructions, 0..1."""
    one, two = pieces(first), pieces(second)
    return len(one & two) / len(one | two)


@cache
def _coefficients() -> tuple[Signature, Signature]:
    rng = np.random.default_rng(0x5EED)
    factors, offsets = rng.integers(0, 2**64, (2, NUM_HASHES), dtype=np.uint64)
    return factors | np.uint64(1), offsets


@dataclass(frozen=True)
class Inverse:
    """What leads from the target back to the source."""

    instruction: str
    type: EditType


def invert(instruction: str, edit_type: EditType) -> Inverse | None:
    """The instruction for the way back, or None where the words do not say it.

    add <-> remove of one described thing, replace, and recolour where the old colour is named ("paint the red car
    blue", "change the car from red to blue"). Refused: lists, numbers, pronouns, "all", "another" and the like, and
    any wording not known here; a wrong instruction is worse than a missing one.
    """
    text = re.sub(r"\s+", " ", instruction.strip().rstrip(".!").lower())
    text = re.sub(r"^please ", "", text)
    if _BOUND.search(text):
        return None
    if edit_type == "add":
        found = re.fullmatch(
            r"(?:add|insert|put|place|draw) an? (\w[\w -]*?)(?: (?:in|to|on|onto|into|at) the (.+))?", text
        )
        if found:
            place = f" from the {found[2]}" if found[2] else ""
            return Inverse(f"remove the {found[1]}{place}", "remove")
    elif edit_type == "remove":
        found = re.fullmatch(
            r"(?:remove|delete|erase|take out|take away|get rid of) the (\w[\w -]*?)(?: (from|in|on|at) the (.+))?",
            text,
        )
        if found and not re.search(r"\w(?<!s)s$", found[1].split(" of ")[0]):  # a plural takes no article
            place = f" {'to' if found[2] == 'from' else found[2]} the {found[3]}" if found[2] else ""
            return Inverse(f"add {_with_article(found[1])}{place}", "add")
    elif edit_type == "replace":
        found = re.fullmatch(r"(replace|swap|exchange|substitute) the (\w[\w -]*?) (with|for|by) an? (\w[\w -]*)", text)
        if found:
            return Inverse(f"{found[1]} the {found[4]} {found[3]} {_with_article(found[2])}", "replace")
    elif edit_type == "recolour":
        return _invert_colour(text)
    return None


def _invert_colour(text: str) -> Inverse | None:
    verbs = r"(make|paint|turn|dye|colou?r|recolou?r|change)"
    found = re.fullmatch(rf"{verbs} (the .+?) from ({_COLOURS}) to ({_COLOURS})", text)
    if found and not re.search(rf"\b{_COLOURS}\b", found[2]):
        return Inverse(f"{found[1]} {found[2]} from {found[4]} to {found[3]}", "recolour")
    found = re.fullmatch(rf"{verbs} the ({_COLOURS}) ([\w -]+?) (to |into )?({_COLOURS})", text)
    if found and not re.search(rf"\b{_COLOURS}\b", found[3]):
        return Inverse(f"{found[1]} the {found[5]} {found[3]} {found[4] or ''}{found[2]}", "recolour")
    return None


def _with_article(words: str) -> str:
    return f"{'an' if words[0] in 'aeiou' else 'a'} {words}"
