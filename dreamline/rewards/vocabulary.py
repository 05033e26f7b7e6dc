"""Words of prompts as numbers."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

PADDING, UNKNOWN = 0, 1
_SPECIAL = ("<pad>", "<unknown>")
_TOKEN = re.compile(r"\w+|[^\w\s]")


class Vocabulary:
    """A fixed list of words, lower case; what is not in it is read as one unknown word."""

    def __init__(self, words: Iterable[str]) -> None:
        """Words without the two special ones; order and repetitions do not matter."""
        self.words = (*_SPECIAL, *sorted(set(words) - set(_SPECIAL)))
        self.numbers = {word: number for number, word in enumerate(self.words)}

    @classmethod
    def of(cls, texts: Iterable[str]) -> Vocabulary:
        """All words of these texts."""
        return cls(word for text in texts for word in split_words(text))

    def __len__(self) -> int:
        return len(self.words)

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Word numbers of each text, padded at the end to the longest one (at least one word)."""
        rows = [[self.numbers.get(word, UNKNOWN) for word in split_words(text)] or [UNKNOWN] for text in texts]
        length = max(map(len, rows), default=1)
        return [row + [PADDING] * (length - len(row)) for row in rows]


def split_words(text: str) -> list[str]:
    """'A red circle.' -> ['a', 'red', 'circle', '.']"""
    return _TOKEN.findall(text.lower())
