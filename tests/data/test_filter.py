"""Filter expressions: the rows that they keep, against plain Python with SQL's third truth value, and their errors."""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dreamline.config import ConfigError
from dreamline.data.filter import parse_filter
from dreamline.data.selection import select_rows

Row = dict[str, Any]
Truth = Callable[[Row], bool | None]


class Table:
    """Columns of an Arrow table."""

    def __init__(self, table: pa.Table) -> None:
        self.table = table
        self.columns = tuple(table.column_names)

    def column(self, name: str) -> pa.ChunkedArray:
        return self.table.column(name)


SCHEMA = pa.schema(
    [
        ("width", pa.int32()),
        ("phash", pa.int64()),
        ("licence", pa.string()),
        ("opt_out", pa.bool_()),
        ("scores", pa.map_(pa.string(), pa.float64())),
        ("crop", pa.struct([("left", pa.int32()), ("kept", pa.float64())])),
        ("members", pa.list_(pa.string())),
        ("label", pa.dictionary(pa.int8(), pa.string())),
        ("scores.blur", pa.float64()),
    ]
)


def table(rows: list[Row], chunks: int = 1) -> Table:
    size = max(1, -(-len(rows) // chunks))
    parts = [pa.Table.from_pylist(rows[i : i + size], schema=SCHEMA) for i in range(0, len(rows), size)]
    return Table(pa.concat_tables(parts or [SCHEMA.empty_table()]))


def row(**values: Any) -> Row:
    return {name: values.get(name) for name in SCHEMA.names}


TWO = [
    row(width=512, phash=2**60 + 1, licence="cc0", opt_out=False, scores=[("aesthetic", 5.5)], label="a"),
    row(width=256, phash=2**60, licence="cc-by", opt_out=True, scores=[("clip-l", 0.5)], crop={"left": 3, "kept": 0.9}),
    row(),
]

SIGNS = {
    "==": operator.eq, "!=": operator.ne, "<": operator.lt,
    "<=": operator.le, ">": operator.gt, ">=": operator.ge,
}  # fmt: skip
READ: dict[str, Callable[[Row], Any]] = {
    "width": lambda row: row["width"],
    "phash": lambda row: row["phash"],
    "licence": lambda row: row["licence"],
    "label": lambda row: row["label"],
    "scores.aesthetic": lambda row: dict(row["scores"] or []).get("aesthetic"),
    "scores.blur": lambda row: row["scores.blur"],
    "crop.left": lambda row: (row["crop"] or {}).get("left"),
    "crop.kept": lambda row: (row["crop"] or {}).get("kept"),
}
WHOLE, REAL, WORDS = st.integers(-3, 3), st.sampled_from([-1.5, 0.0, 1.0, 2.25]), st.sampled_from(["", "cc0", "a b"])
NUMBERS = ["width", "phash", "scores.aesthetic", "scores.blur", "crop.left", "crop.kept"]


def maybe(values: st.SearchStrategy[Any]) -> st.SearchStrategy[Any]:
    return st.none() | values


ROWS = st.lists(
    st.fixed_dictionaries(
        {
            "width": maybe(WHOLE),
            "phash": maybe(WHOLE),
            "licence": maybe(WORDS),
            "opt_out": maybe(st.booleans()),
            "scores": maybe(st.just([]) | REAL.map(lambda value: [("aesthetic", value)])),
            "crop": maybe(st.fixed_dictionaries({"left": maybe(WHOLE), "kept": maybe(REAL)})),
            "members": st.none(),
            "label": maybe(WORDS),
            "scores.blur": maybe(REAL),
        }
    ),
    max_size=12,
)


def compared(left: Any, sign: str, right: Any) -> bool | None:
    return None if left is None or right is None else bool(SIGNS[sign](left, right))


@st.composite
def atoms(draw: st.DrawFn) -> tuple[str, Truth]:
    kind = draw(st.sampled_from(["number", "columns", "text", "in", "null", "flag", "true"]))
    sign = draw(st.sampled_from(sorted(SIGNS)))
    number, text = draw(st.sampled_from(NUMBERS)), draw(st.sampled_from(["licence", "label"]))
    if kind == "number":
        value = draw(WHOLE | REAL)
        if draw(st.booleans()):
            return f"{value} {sign} {number}", lambda row: compared(value, sign, READ[number](row))
        return f"{number} {sign} {value}", lambda row: compared(READ[number](row), sign, value)
    if kind == "columns":
        other = draw(st.sampled_from(NUMBERS))
        return f"{number} {sign} {other}", lambda row: compared(READ[number](row), sign, READ[other](row))
    if kind == "text":
        word = draw(WORDS)
        return f"{text}{sign}'{word}'", lambda row: compared(READ[text](row), sign, word)
    if kind == "in":
        name = draw(st.sampled_from([number, text]))
        values = draw(st.lists(WORDS if name == text else WHOLE | REAL, min_size=1, max_size=3))
        listed = ", ".join(f'"{value}"' if isinstance(value, str) else str(value) for value in values)
        if draw(st.booleans()):
            return f"{name} in [{listed}]", lambda row: None if READ[name](row) is None else READ[name](row) in values
        return f"{name} not in [{listed}]", lambda r: None if READ[name](r) is None else READ[name](r) not in values
    if kind == "null":
        name = draw(st.sampled_from(sorted(READ)))
        if draw(st.booleans()):
            return f"{name} is null", lambda row: READ[name](row) is None
        return f"{name} IS NOT NULL", lambda row: READ[name](row) is not None
    if kind == "flag":
        return "opt_out", lambda row: row["opt_out"]
    return "opt_out == true", lambda row: row["opt_out"]


def combined(parts: st.SearchStrategy[tuple[str, Truth]]) -> st.SearchStrategy[tuple[str, Truth]]:
    def negated(part: tuple[str, Truth]) -> tuple[str, Truth]:
        text, truth = part
        return f"not ({text})", lambda row: None if truth(row) is None else not truth(row)

    def every(several: list[tuple[str, Truth]]) -> tuple[str, Truth]:
        def truth(row: Row) -> bool | None:
            found = [truth(row) for _, truth in several]
            return False if False in found else None if None in found else True

        return " and ".join(f"({text})" for text, _ in several), truth

    def some(several: list[tuple[str, Truth]]) -> tuple[str, Truth]:
        def truth(row: Row) -> bool | None:
            found = [truth(row) for _, truth in several]
            return True if True in found else None if None in found else False

        return " or ".join(f"({text})" for text, _ in several), truth

    lists = st.lists(parts, min_size=2, max_size=3)
    return parts.map(negated) | lists.map(every) | lists.map(some)


@given(rows=ROWS, expression=st.recursive(atoms(), combined, max_leaves=6), chunks=st.integers(1, 3))
@settings(max_examples=300, deadline=None)
def test_rows_are_those_that_plain_python_keeps(rows: list[Row], expression: tuple[str, Truth], chunks: int) -> None:
    text, truth = expression
    seen = {name for row in rows for name, _ in row["scores"] or []}
    if rows and "scores.aesthetic" in text and "aesthetic" not in seen:
        with pytest.raises(ConfigError, match=r"scores\.aesthetic|'aesthetic'"):
            select_rows(text, table(rows, chunks))
        return
    found = select_rows(text, table(rows, chunks))
    assert found.dtype == np.int64
    assert found.tolist() == [i for i, row in enumerate(rows) if truth(row) is True]


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("width >= 512", [0]),
        ("width >= 256 and scores.aesthetic > 5 and licence in ['cc0', \"cc-by\"]", [0]),
        ("not width >= 512", [1]),  # the width of the third is unknown
        ("not (width >= 512) or width is null", [1, 2]),
        ("opt_out is null or not opt_out and licence == 'cc0'", [0, 2]),  # "and" before "or"
        ("scores.clip-l > .25", [1]),
        (f"phash == {2**60 + 1}", [0]),  # no float in between
        (f"phash in [{2**60}, 5]", [1]),
        ("phash < 1e30", [0, 1]),
        ("crop.kept>=0.9", [1]),
        ("label == 'a'", [0]),
        ("  width\n  ==512  ", [0]),
    ],
)
def test_rows_of_some_expressions(text: str, kept: list[int]) -> None:
    assert select_rows(text, table(TWO)).tolist() == kept


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", r"character 1: expected a test such as width >= 512, found the end"),
        ("width", r"character 1: column 'width' holds int32, not true or false"),
        ("width >", r"character 8: expected a column or a value, found the end"),
        ("width > 3 adn opt_out", r"character 11: expected 'and', 'or' or the end, found 'adn'"),
        ("(width > 3", r"character 11: expected '\)', 'and' or 'or', found the end"),
        ("width = 3", r"character 7: '=' means nothing here; compare with =="),
        ("licence == 'cc0", r"character 12: \"'\" means nothing here; the text has no end"),
        ("licence == null", r"character 12: nothing equals null; write 'is null'"),
        ("licence is 'x'", r"character 12: expected 'null', found \"'x'\""),
        ("licence in 'x'", r"character 12: expected '\[' and a list of values"),
        ("licence in []", r"character 13: expected a value: a number, a text in quotes, true or false, found '\]'"),
        ("width not 3", r"character 11: expected 'in', found '3'"),
        ("1 < width < 3", r"character 11: one comparison at a time; join two with 'and'"),
        ("3 == 3", r"character 1: a comparison needs a column on one side"),
        ("3 is null", r"character 1: expected a column, found the value 3"),
        ("width > 1 + 2", r"character 11: '\+' means nothing here"),
        ("not " * 60 + "opt_out", r"more than 50 brackets or 'not' in one another"),
        ("(" * 5000, r"more than 50 brackets"),
        ("widht > 3", r"there is no column 'widht'; the columns are: crop, .*, width$"),
        ("scores.beauty > 3", r"'scores' has no 'beauty' in any sample; it has: aesthetic, clip-l$"),
        ("crop.right == 3", r"'crop' has no 'right' in any sample; it has: kept, left$"),
        ("width.px > 3", r"column 'width' holds int32, it has no part 'px'"),
        ("width > 'x'", r"column 'width' holds int32, not texts"),
        ("licence > 3", r"column 'licence' holds string, not numbers"),
        ("licence == true", r"column 'licence' holds string, not true or false"),
        ("width > licence", r"column 'width' holds int32, not texts"),
        ("opt_out in [true, 1]", r"column 'opt_out' holds bool, not numbers and true or false"),
        ("members == 'x'", r"column 'members' holds list<.*>, not texts"),
        ("scores > 3", r"column 'scores' holds map<.*>, not numbers"),
        ("__import__('os').system('true')", r"character 17: '\.' means nothing here"),
    ],
)
def test_errors_say_where_and_what_there_is(text: str, told: str) -> None:
    with pytest.raises(ConfigError, match=told):
        select_rows(text, table(TWO))


def test_long_expressions() -> None:
    text = " or ".join(f"width == {i}" for i in range(2000))
    assert select_rows(text, table(TWO)).tolist() == [0, 1]
    assert parse_filter(text) == parse_filter(f"{text} \n")
