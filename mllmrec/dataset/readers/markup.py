"""Turn HTML into plain text: what shops and review dumps keep in titles, categories and descriptions."""

from __future__ import annotations

import html
import re

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
