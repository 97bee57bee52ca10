"""Make a shop's text safe to keep: no HTML, no control characters, no endless fields, lists where lists belong."""

from __future__ import annotations

import html
import math
import re
import unicodedata
from collections.abc import Iterator
from typing import Any

from mllmrec.dataset.readers.values import unpack_cell

TITLE_LENGTH = 1_000
DESCRIPTION_LENGTH = 20_000
_MOST_PARTS = 50
_NESTING = 8
_MARKUP_LENGTH = 1 << 18  # characters; where a product page stands for a title, the title comes late
# Bidirectional overrides and isolates reorder what a person reads; they say nothing of an item.
_BIDI = dict.fromkeys([*range(0x202A, 0x202F), *range(0x2066, 0x206A), 0x200E, 0x200F, 0xFEFF])


def clean(value: Any, most: int) -> str | None:
    """Return a value as one line of at most `most` characters; None if nothing readable is left.

    Lists of strings are joined. HTML becomes plain text. Control characters, NUL, lone surrogates and bidirectional
    overrides go. Objects, bytes, true and false, NaN and infinity are nothing readable.
    """
    listed = _unpack_texts(value)
    if isinstance(listed, (list, tuple)):
        value = " ".join(part for part in listed if isinstance(part, str))
    if not isinstance(value, str):
        value = str(value) if _is_readable(value) else ""
    # Control characters and surrogates become spaces, so that what stood apart stays apart.
    raw = strip_html(value[:_MARKUP_LENGTH])[: 4 * most].translate(_BIDI)
    printable = "".join(" " if unicodedata.category(c) in ("Cc", "Cs") else c for c in raw)
    return " ".join(printable.split())[:most].rstrip() or None


def _unpack_texts(value: Any) -> Any:
    """Return the list that a text writes, where it lists nothing but texts: `[1]` is a title."""
    listed = unpack_cell(value)
    texts = isinstance(listed, list) and all(isinstance(part, str) for part in listed)
    return listed if texts else value


def _is_readable(value: Any) -> bool:
    if isinstance(value, float):
        return math.isfinite(value)
    return value is not None and not isinstance(value, (dict, bool, bytes, set))


def parts(value: Any) -> list[str]:
    """Return a category path as a list, each part once and at most 50.

    Lists stay; nested ones are flattened, and so is a list that a text writes (`"['Home', 'Shades']"`). Other text
    is divided at | ; or >.
    """
    labels = (clean(part, TITLE_LENGTH) for part in _flat(unpack_cell(value)))
    return list(dict.fromkeys(label for label in labels if label))[:_MOST_PARTS]


def _flat(value: Any) -> Iterator[str]:
    if isinstance(value, str):
        # Before the text is divided: entities end with a semicolon.
        yield from re.split(r"[|;>]", strip_html(value[:_MARKUP_LENGTH]))
    elif isinstance(value, (list, tuple)):
        yield from _strings(value, 0)


def _strings(values: Any, depth: int) -> Iterator[str]:
    for value in values:
        if isinstance(value, str):
            yield value
        elif isinstance(value, (list, tuple)) and depth < _NESTING:
            yield from _strings(value, depth + 1)


_INLINE = frozenset(
    (
        *("a", "abbr", "b", "big", "cite", "code", "em", "font", "i", "mark", "q", "s", "small", "span", "strike"),
        *("strong", "sub", "sup", "tt", "u", "wbr"),
    )
)
_BLOCK = frozenset(
    (
        *("article", "aside", "blockquote", "body", "br", "button", "caption", "center", "dd", "div", "dl", "dt"),
        *("figure", "figcaption", "footer", "form", "h1", "h2", "h3", "h4", "h5", "h6", "head", "header", "hr", "html"),
        *("iframe", "img", "input", "label", "li", "link", "main", "meta", "nav", "noscript", "ol", "option", "p"),
        *("script", "section", "select", "style", "svg", "table", "tbody", "td", "tfoot", "th", "thead", "title", "tr"),
        *("pre", "ul", "video", "!doctype"),
    )
)
_TAG = re.compile(r"</?(!doctype|[a-z][a-z0-9]*)(?=[\s/>])[^<>]*>", re.I)
_ALTERNATIVE = re.compile(r"\balt\s*=\s*(?:\"([^\"]*)\"|'([^']*)')", re.I)
_BLOCK_START = re.compile(r"<(?:(script|style)(?=[\s/>])[^<>]*>|!--)", re.I)
_BLOCK_END = {
    "script": re.compile(r"</script\s*>", re.I),
    "style": re.compile(r"</style\s*>", re.I),
    "": re.compile("-->"),
}
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.I)
# A dump of 2018 holds whole product pages, from their first script on, where a title was expected.
_PAGE = re.compile(r"\s*var aPageStart\b")
_PAGE_TITLE = re.compile(r"<[^<>]*\bid\s*=\s*[\"']?(?:\w*productTitle)\b[^<>]*>([^<]*)", re.I)
_ROUNDS = 2  # text is often escaped twice: &amp;quot;


def strip_html(text: str) -> str:
    """Return a text without tags, comments, scripts and styles, its entities decoded.

    Blocks and line breaks become spaces, an image its alternative text. A whole product page becomes its title.
    """
    if _PAGE.match(text):
        title = _PAGE_TITLE.search(text)
        text = title[1] if title else "".join(text.partition("<")[1:])
    if "<" not in text and "&" not in text:
        return text
    for _ in range(_ROUNDS):
        text = _ENTITY.sub(lambda entity: html.unescape(entity[0]), _strip_tags(text))
    return _strip_tags(text)


def _strip_tags(text: str) -> str:
    return _TAG.sub(_replacement, _strip_blocks(text))


def _replacement(tag: re.Match[str]) -> str:
    name = tag[1].lower()
    if name == "img" and (alternative := _ALTERNATIVE.search(tag[0])):
        return f" {alternative[1] or alternative[2] or ''} "
    if name in _INLINE:
        return ""
    # Only names of HTML elements: `List<String>`, `x < y` and `<3` are text.
    return " " if name in _BLOCK else tag[0]


def _strip_blocks(text: str) -> str:
    """Drop comments, scripts and styles with their content; a script that is cut off goes to the end."""
    pieces, position = [], 0
    for start in _BLOCK_START.finditer(text):
        if start.start() < position:
            continue
        name = (start[1] or "").lower()
        end = _BLOCK_END[name].search(text, start.end())
        if end is None and not name:
            break  # no comment ends behind here
        pieces.append(text[position : start.start()])
        position = end.end() if end else len(text)
    return " ".join([*pieces, text[position:]])
