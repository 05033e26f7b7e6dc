"""Filter expressions: which samples of a data set take part, said over the columns of its manifest.

    width >= 512 and scores.aesthetic > 5 and licence in ["cc0", "cc-by"] and not (opt_out or url is null)

    expression: term {"or" term}                       term: factor {"and" factor}
    factor:     "not" factor | "(" expression ")" | test
    test:       operand [("==" | "!=" | "<" | "<=" | ">" | ">=") operand]
                | column ["not"] "in" "[" value {"," value} "]" | column "is" ["not"] "null"
    operand:    column | value                         value: number | "text" | 'text' | true | false

A column with dots reaches into a struct or a map, such as `scores.aesthetic`. A column alone is a test if it holds
true or false. A test on a value that is missing is unknown, as in SQL: `not` leaves it unknown, `and` and `or` decide
where the other side does, and only samples for which the whole is true are kept. An expression is data: it is parsed
here and computed by pyarrow, never run as code.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from dreamline.config import ConfigError

Value = bool | int | float | str

COMPARISONS = {
    "==": "equal",
    "!=": "not_equal",
    "<": "less",
    "<=": "less_equal",
    ">": "greater",
    ">=": "greater_equal",
}  # operator: function of pyarrow.compute
MAX_DEPTH = 50  # of brackets and "not"
_TOKEN = re.compile(
    r"""\s*(?:
    (?P<number>[+-]?(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?(?![\w.]))
    |(?P<text>"[^"]*"|'[^']*')
    |(?P<word>[A-Za-z_][\w-]*(?:\.[\w-]+)*)
    |(?P<sign>==|!=|<=|>=|[<>()\[\],])
    )""",
    re.VERBOSE,
)
_WORDS = ("and", "or", "not", "in", "is", "null", "true", "false")


@dataclass(frozen=True)
class Column:
    """A column of the manifest, by its dotted name."""

    name: str
    place: int  # characters from the start of the expression


@dataclass(frozen=True)
class Flag:
    """A column that holds true or false."""

    column: Column


@dataclass(frozen=True)
class Comparison:
    """Two operands, at least one of them a column."""

    left: Column | Value
    sign: str
    right: Column | Value


@dataclass(frozen=True)
class Membership:
    """Whether a column has one of some values."""

    column: Column
    values: tuple[Value, ...]


@dataclass(frozen=True)
class Missing:
    """Whether a column has no value."""

    column: Column


@dataclass(frozen=True)
class Not:
    """The opposite."""

    term: Node


@dataclass(frozen=True)
class Every:
    """All of several ("and")."""

    terms: tuple[Node, ...]


@dataclass(frozen=True)
class Some:
    """At least one of several ("or")."""

    terms: tuple[Node, ...]


Node = Flag | Comparison | Membership | Missing | Not | Every | Some


@dataclass(frozen=True)
class _Token:
    kind: str  # number, text, word, sign, end
    text: str
    place: int

    def is_(self, *texts: str) -> bool:
        return self.kind in ("word", "sign") and self.text in texts


def parse_filter(text: str) -> Node:
    """Read an expression.

    Raises:
        ConfigError: it is none; says where, what was found there and what can stand there.
    """
    return _Parser(text).parse()


def failure(text: str, place: int, problem: str) -> ConfigError:
    """The error for something at a character of an expression."""
    return ConfigError(f"filter {text!r}, at character {place + 1}: {problem}")


class _Parser:
    """Recursive descent, one method per line of the grammar."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.tokens = list(self._tokens())
        self.number = 0
        self.depth = 0

    def parse(self) -> Node:
        if self.token.kind == "end":
            raise self.expected("a test such as width >= 512")
        node = self.expression()
        if self.token.kind != "end":
            raise self.expected("'and', 'or' or the end")
        return node

    @property
    def token(self) -> _Token:
        return self.tokens[self.number]

    def take(self) -> _Token:
        token = self.token
        self.number += 1
        return token

    def accept(self, *texts: str) -> bool:
        found = self.token.is_(*texts)
        self.number += found
        return found

    def expected(self, what: str) -> ConfigError:
        found = repr(self.token.text) if self.token.kind != "end" else "the end"
        return failure(self.text, self.token.place, f"expected {what}, found {found}")

    def expression(self) -> Node:
        terms = [self.term()]
        while self.accept("or"):
            terms.append(self.term())
        return terms[0] if len(terms) == 1 else Some(tuple(terms))

    def term(self) -> Node:
        terms = [self.factor()]
        while self.accept("and"):
            terms.append(self.factor())
        return terms[0] if len(terms) == 1 else Every(tuple(terms))

    def factor(self) -> Node:
        self.depth += 1
        if self.depth > MAX_DEPTH:
            raise failure(self.text, self.token.place, f"more than {MAX_DEPTH} brackets or 'not' in one another")
        if self.accept("not"):
            node: Node = Not(self.factor())
        elif self.accept("("):
            node = self.expression()
            if not self.accept(")"):
                raise self.expected("')', 'and' or 'or'")
        else:
            node = self.test()
        self.depth -= 1
        return node

    def test(self) -> Node:
        place = self.token.place
        left = self.operand()
        if self.token.is_(*COMPARISONS):
            sign, right = self.take().text, self.operand()
            if self.token.is_(*COMPARISONS):
                raise failure(self.text, self.token.place, "one comparison at a time; join two with 'and'")
            if not isinstance(left, Column) and not isinstance(right, Column):
                raise failure(self.text, place, "a comparison needs a column on one side")
            return Comparison(left, sign, right)
        if not isinstance(left, Column):
            raise failure(self.text, place, f"expected a column, found the value {left!r}")
        if self.accept("is"):
            opposite = self.accept("not")
            if not self.accept("null"):
                raise self.expected("'null'")
            return Not(Missing(left)) if opposite else Missing(left)
        opposite = self.token.is_("not")
        self.number += opposite
        if self.accept("in"):
            node = Membership(left, self.values())
            return Not(node) if opposite else node
        if opposite:
            raise self.expected("'in'")
        return Flag(left)

    def values(self) -> tuple[Value, ...]:
        if not self.accept("["):
            raise self.expected("'[' and a list of values")
        values = [self.value()]
        while self.accept(","):
            values.append(self.value())
        if not self.accept("]"):
            raise self.expected("',' or ']'")
        return tuple(values)

    def operand(self) -> Column | Value:
        if self.token.kind == "word" and self.token.text not in _WORDS:
            token = self.take()
            return Column(token.text, token.place)
        return self.value("a column or a value")

    def value(self, what: str = "a value: a number, a text in quotes, true or false") -> Value:
        token = self.token
        if token.is_("null"):
            raise failure(self.text, token.place, "nothing equals null; write 'is null' or 'is not null'")
        if token.kind == "number":
            self.number += 1
            return _number(token.text)
        if token.kind == "text":
            self.number += 1
            return token.text[1:-1]
        if token.is_("true", "false"):
            return self.take().text == "true"
        raise self.expected(what)

    def _tokens(self) -> Iterator[_Token]:
        place, end = 0, len(self.text.rstrip())
        while place < end:
            match = _TOKEN.match(self.text, place)
            if match is None or match.lastgroup is None:
                start = place + len(self.text[place:]) - len(self.text[place:].lstrip())
                character = self.text[start]
                advice = {"=": "; compare with ==", '"': "; the text has no end", "'": "; the text has no end"}
                raise failure(self.text, start, f"{character!r} means nothing here{advice.get(character, '')}")
            kind, text = match.lastgroup, match.group(match.lastgroup)
            if kind == "word" and text.lower() in _WORDS:
                text = text.lower()
            yield _Token(kind, text, match.start(kind))
            place = match.end()
        yield _Token("end", "", end)


def _number(text: str) -> int | float:
    try:
        whole = int(text)
    except ValueError:
        return float(text)
    return whole if abs(whole) < 2**63 else float(whole)
