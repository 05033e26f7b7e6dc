"""Which rows of a data set a filter keeps, computed column by column."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import numpy as np

from dreamline.config import ConfigError
from dreamline.data.filter import (
    COMPARISONS,
    Column,
    Comparison,
    Every,
    Flag,
    Membership,
    Missing,
    Node,
    Not,
    Value,
    failure,
    parse_filter,
)
from dreamline.data.order import Indices


class Columns(Protocol):
    """The columns of a manifest, one value per sample."""

    @property
    def columns(self) -> Sequence[str]:
        """Their names."""
        ...

    def column(self, name: str) -> Any:
        """One of them, a pyarrow ChunkedArray."""
        ...


def select_rows(text: str, table: Columns) -> Indices:
    """Rows for which an expression is true, ascending.

    Raises:
        ConfigError: not an expression, a column that is not there, or a value that its type cannot be compared with;
            names the expression, the place in it, the column and the columns there are.
    """
    import pyarrow.compute as pc

    mask = _Evaluation(text, table).node(parse_filter(text))
    kept = np.flatnonzero(pc.fill_null(mask, False).to_numpy())
    return kept.astype(np.int64, copy=False)


class _Evaluation:
    """Truth of each node as a chunked array of booleans, null where it is unknown."""

    def __init__(self, text: str, table: Columns) -> None:
        self.text, self.table = text, table

    def node(self, node: Node) -> Any:
        import pyarrow.compute as pc

        if isinstance(node, Flag):
            values = self.column(node.column)
            if str(values.type) != "bool":
                raise self.mismatch(node.column, values, "true or false")
            return values
        if isinstance(node, Comparison):
            return self.comparison(node)
        if isinstance(node, Membership):
            return self.membership(node)
        if isinstance(node, Missing):
            return pc.is_null(self.column(node.column))
        if isinstance(node, Not):
            return pc.invert(self.node(node.term))
        join = pc.and_kleene if isinstance(node, Every) else pc.or_kleene
        result = self.node(node.terms[0])
        for term in node.terms[1:]:
            result = join(result, self.node(term))
        return result

    def comparison(self, node: Comparison) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        left, right = self.operand(node.left), self.operand(node.right)
        if _family(left.type) != _family(right.type) or _family(left.type) == "other":
            column, other = (node.left, right) if isinstance(node.left, Column) else (node.right, left)
            assert isinstance(column, Column)
            raise self.mismatch(column, self.column(column), _said(_family(other.type)))
        if _family(left.type) == "number":
            common = pa.int64() if _whole(left.type) and _whole(right.type) else pa.float64()
            left, right = pc.cast(left, common, safe=False), pc.cast(right, common, safe=False)
        return pc.call_function(COMPARISONS[node.sign], [left, right])

    def membership(self, node: Membership) -> Any:
        import pyarrow as pa
        import pyarrow.compute as pc

        column = self.column(node.column)
        families = {_family(pa.scalar(value).type) for value in node.values}
        if families != {_family(column.type)}:
            raise self.mismatch(node.column, column, " and ".join(sorted(map(_said, families))))
        values = pa.array(node.values)
        if families == {"number"}:
            common = pa.int64() if _whole(column.type) and _whole(values.type) else pa.float64()
            column, values = pc.cast(column, common, safe=False), pc.cast(values, common, safe=False)
        found = pc.is_in(column, value_set=values)
        return pc.if_else(pc.is_valid(column), found, pa.scalar(None, pa.bool_()))

    def operand(self, operand: Column | Value) -> Any:
        import pyarrow as pa

        return self.column(operand) if isinstance(operand, Column) else pa.scalar(operand)

    def column(self, column: Column) -> Any:
        """Values of a column, of the nested ones too.

        Raises:
            ConfigError: there is none of this name.
        """
        import pyarrow as pa
        import pyarrow.compute as pc

        names = set(self.table.columns)
        name, *inner = column.name.split(".")
        if column.name in names:
            name, inner = column.name, []
        if name not in names:
            raise self.unknown(column, column.name, names)
        values = self.table.column(name)
        for part in inner:
            if pa.types.is_map(values.type) and not isinstance(values, pa.Scalar):
                values = self._entry(column, name, part, values)
            elif pa.types.is_struct(values.type):
                if values.type.get_field_index(part) < 0:
                    raise self.unknown(column, part, {field.name for field in values.type}, name)
                values = pc.struct_field(values, part)
            else:
                raise failure(self.text, column.place, f"column {name!r} holds {values.type}, it has no part {part!r}")
            name = f"{name}.{part}"
        if pa.types.is_dictionary(values.type):
            values = values.cast(values.type.value_type)
        return values

    def _entry(self, column: Column, name: str, part: str, values: Any) -> Any:
        """What a map has under a name; an error where no sample has it."""
        import pyarrow.compute as pc

        found = pc.map_lookup(values, part, "first")
        if found.null_count == len(found) and len(found):
            keys: set[str] = set()
            for chunk in values.chunks:
                keys.update(chunk.keys.unique().to_pylist())
            if part not in keys:
                raise self.unknown(column, part, keys, name)
        return found

    def unknown(self, column: Column, part: str, names: set[str], parent: str | None = None) -> ConfigError:
        there = ", ".join(sorted(names)) or "none"
        if parent is None:
            return failure(self.text, column.place, f"there is no column {part!r}; the columns are: {there}")
        return failure(self.text, column.place, f"{parent!r} has no {part!r} in any sample; it has: {there}")

    def mismatch(self, column: Column, values: Any, what: str) -> ConfigError:
        return failure(self.text, column.place, f"column {column.name!r} holds {values.type}, not {what}")


def _family(kind: Any) -> str:
    """What values of an Arrow type can be compared with."""
    import pyarrow as pa

    if pa.types.is_boolean(kind):
        return "boolean"
    if pa.types.is_integer(kind) or pa.types.is_floating(kind):
        return "number"
    if pa.types.is_string(kind) or pa.types.is_large_string(kind):
        return "text"
    return "other"


def _whole(kind: Any) -> bool:
    import pyarrow as pa

    return bool(pa.types.is_integer(kind))


def _said(family: str) -> str:
    return {"boolean": "true or false", "number": "numbers", "text": "texts"}.get(family, "values to compare")
