"""Read a list or an object that a text cell holds, written as JSON or as a Python literal.

A Python literal is read by `ast.literal_eval`; it is never evaluated. Size and nesting are limited before either
parser sees the text.
"""

from __future__ import annotations

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from typing import Any

LITERAL_CHARACTERS = 1 << 20
LITERAL_DEPTH = 32
_CELL_CHARACTERS = 1 << 16  # the tokenizer takes 10 us a string
_NEIGHBORS = re.compile(r"['\"]\s+[bBuU]?['\"]")
_BRACKETS = {"[": "]", "{": "}", "(": ")"}
_BLANK_TOKENS = frozenset({tokenize.NL, tokenize.NEWLINE, tokenize.COMMENT})


def parse_literal(text: str) -> Any:
    """Return the value that a text writes as JSON or as a Python literal.

    Raises:
        ValueError: the text is neither, or is too long or too deep to try.
    """
    check_literal(text)
    try:
        return json.loads(text)
    except ValueError:
        pass
    try:
        return ast.literal_eval(text.strip())
    except (ValueError, SyntaxError, TypeError, RecursionError, MemoryError) as error:
        raise ValueError(f"neither JSON nor a Python literal: {str(error)[:100] or type(error).__name__}") from error


def check_literal(text: str) -> None:
    """Refuse a text that is too long or nested too deep for a parser.

    Raises:
        ValueError: it is.
    """
    if len(text) > LITERAL_CHARACTERS:
        raise ValueError(f"a literal of over {LITERAL_CHARACTERS >> 20} MiB")
    depth = deepest = 0
    for character in text:
        depth += (character in "([{") - (character in ")]}")
        deepest = max(deepest, depth)
    if deepest > LITERAL_DEPTH:
        raise ValueError(f"a literal nested {deepest} deep")


def unpack_cell(value: Any) -> Any:
    """Return the list or dict that a text cell writes, and any other value as it is.

    Cells as `"['Home', 'Shades']"`, `'["Home"]'` and NumPy's `"['Home' 'Shades']"` are lists. A text in brackets
    that cannot be read stays the text.
    """
    if not isinstance(value, str):
        return value
    text = value.strip()
    if len(text) < 2 or _BRACKETS.get(text[0]) != text[-1]:
        return value
    try:
        parsed = parse_literal(_separate_strings(text))
    except ValueError:
        return value
    if isinstance(parsed, (tuple, set)):
        return list(parsed)
    return parsed if isinstance(parsed, (list, dict)) else value


def _separate_strings(text: str) -> str:
    """Put commas between neighboring strings: Python would join `['a' 'b']`, NumPy's print of two, into one."""
    if not _NEIGHBORS.search(text):
        return text
    if len(text) > _CELL_CHARACTERS:
        raise ValueError(f"a list of over {_CELL_CHARACTERS >> 10} KiB without commas")
    lines = text.splitlines(keepends=True)
    for row, column in reversed(list(_string_gaps(text))):
        lines[row - 1] = f"{lines[row - 1][:column]}, {lines[row - 1][column:]}"
    return "".join(lines)


def _string_gaps(text: str) -> Iterator[tuple[int, int]]:
    """Yield (line, column) of each string that follows a string without a comma."""
    after_string = False
    try:
        for token in tokenize.generate_tokens(io.StringIO(text).readline):
            if token.type in _BLANK_TOKENS:
                continue
            if after_string and token.type == tokenize.STRING:
                yield token.start
            after_string = token.type == tokenize.STRING
    except (tokenize.TokenError, SyntaxError):
        return
