"""Edit types: ours, and what public data sets call them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Literal, get_args

EditType = Literal["add", "remove", "replace", "recolour", "style", "background", "text", "move", "global", "other"]
Scope = Literal["local", "global", "background", "unknown"]

EDIT_TYPES: tuple[EditType, ...] = get_args(EditType)

# How far an edit may reach. "local" leaves a background to compare; of "other" nothing is known.
SCOPES: Mapping[EditType, Scope] = {
    **dict.fromkeys(("add", "remove", "replace", "recolour", "text", "move"), "local"),
    **dict.fromkeys(("style", "global"), "global"),
    "background": "background",
    "other": "unknown",
}

# Whole labels, in lower case with single spaces. "move" is the place, size or pose of what is there; "replace" also its
# kind or material. Words of InstructPix2Pix, MagicBrush and HQ-Edit are missing: these sets name no types.
_WORDS: Mapping[EditType, tuple[str, ...]] = {
    "add": ("add", "addition", "insert", "insertion", "object addition", "subject add", "add object", "compose"),
    "remove": ("remove", "removal", "delete", "object removal", "subject remove", "erase", "extract object"),
    "replace": (
        *("replace", "swap", "object swap", "object replacement", "subject replace", "substitute", "alter", "adjust"),
        *(
            "attribute",
            "attribute modification",
            "material change",
            "material alter",
            "appearance alter",
            "change local",
        ),
        *("visual material transfer", "object change", "part change", "counting", "ps human"),
    ),
    "recolour": ("recolour", "recolor", "color", "colour", "color alter", "color change", "change color"),
    "style": ("style", "style change", "style transfer", "stylization", "stylisation", "artistic style", "art style"),
    "background": ("background", "background change", "background swap", "change background", "background replacement"),
    "text": ("text", "text change", "textual change", "text editing", "ocr", "edit text", "text edit"),
    "move": (
        *("move", "movement", "resize", "resizing", "rotation change", "action", "action change", "motion change"),
        *("relation change", "relation", "pose", "position", "viewpoint object"),
    ),
    "global": (
        *(
            "global",
            "env",
            "environment",
            "weather",
            "season",
            "time",
            "tone",
            "tone transfer",
            "tone change",
            "lighting",
        ),
        *(
            "colour grading",
            "color grading",
            "change global",
            "time change",
            "restoration",
            "enhancement",
            "relighting",
        ),
    ),
    "other": (
        *("other", "hybrid", "mixed", "version", "outpainting", "outpaint", "implicit change", "reasoning", "extract"),
        *("viewpoint", "camera", "zoom", "visual reference", "visual depth", "visual segment", "visual sketch"),
        *("visual scribble", "visual bbox", "content memory", "content understanding", "complex"),
    ),
}
_BY_WORD: Mapping[str, EditType] = {word: name for name, words in _WORDS.items() for word in words}

# Long labels ("Relocate an object (change its position)"): the first pattern that matches decides.
_PHRASES: tuple[tuple[str, EditType], ...] = (
    (r"\b(style|stylis|styliz|painting|sketch|cartoon|anime|artistic)", "style"),
    (r"\b(background|backdrop)", "background"),
    (r"\b(text|font|caption|letter|signage|ocr)\b", "text"),
    (r"\b(crop|zoom|outpaint|viewpoint|camera|perspective|aspect ratio)", "other"),
    (
        r"\b(weather|season|time of day|lighting|relight|tone|filter|exposure|environment|grain|whole|overall)\b",
        "global",
    ),
    (r"\b(remov|delet|eras)", "remove"),
    (r"\b(relocat|mov|resiz|rotat|position|scale|size|pose|orientation|action)", "move"),
    (r"\b(replac|swap|substitut|attribute|material|texture|clothing)", "replace"),
    (r"\b(recolou?r|colou?r)", "recolour"),
    (r"\b(add|insert|new object)", "add"),
)

# What an instruction without a label most likely asks for; style and background first, their verbs are anybody's.
_INSTRUCTIONS: tuple[tuple[str, EditType], ...] = (
    (r"\b(style|stylise|stylize|painting|watercolou?r|sketch|cartoon|anime|pixel art|impressionist)\b", "style"),
    (r"\b(background|backdrop)\b", "background"),
    (r"\b(text|sign says|letters?|caption|word|font|title)\b|\bsay(s|ing)?\b", "text"),
    (r"^\W*(please )?(remove|delete|erase|get rid of|take (away|out))\b", "remove"),
    (r"^\W*(please )?(add|insert|put|place|draw|include)\b", "add"),
    (r"^\W*(please )?(replace|swap|exchange|substitute)\b", "replace"),
    (r"^\W*(please )?(move|shift|slide|relocate|resize|rotate|enlarge|shrink)\b", "move"),
    (r"\b(night|sunset|sunrise|winter|summer|autumn|spring|snow(y|ing)?|rain(y|ing)?|fog(gy)?|weather)\b", "global"),
    (
        r"\b(recolou?r|paint|dye|colou?r)\b"
        r"|\b(make|turn|change)\b.*\b(red|green|blue|yellow|orange|purple|pink|brown|black|white|gr[ae]y|cyan|gold(en)?)\b",
        "recolour",
    ),
)


def scope_of(edit_type: EditType) -> Scope:
    """How far an edit of this type may reach."""
    return SCOPES[edit_type]


def edit_type_of(label: str | None, instruction: str | None = None) -> EditType:
    """Our name of an edit type, from a data set's own word for it, else from the instruction, else "other".

    A guess from an instruction leans towards "other", for which hardly anything is checked.
    """
    if label and label.strip():
        words = re.sub(r"[^a-z]+", " ", label.lower()).strip()
        if words in _BY_WORD:
            return _BY_WORD[words]
        return next((name for pattern, name in _PHRASES if re.search(pattern, words)), "other")
    text = (instruction or "").strip().lower()
    return next((name for pattern, name in _INSTRUCTIONS if re.search(pattern, text)), "other")
