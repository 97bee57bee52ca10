"""Read the prompt templates and put data into them.

A template is only instructions, read from TOML; its hash is part of every cache key. Data goes into its named
places in one pass, so braces inside data are never read as a name.

Data from a shop cannot speak as the prompt. Chat templates mark turns, images and controls by brackets
(`<|im_start|>`, `<image>`, `[INST]`, `</s>`), and so do the elements here. `neutralize` therefore replaces the four
characters < > [ ] by look-alikes. No list of tokens has to be kept, and no data can close its element.
"""

from __future__ import annotations

import re
import tomllib
import unicodedata
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from mllmrec.errors import ConfigError, near_miss
from mllmrec.foundation import digests
from mllmrec.reason.engine import ChatRequest
from mllmrec.reason.token_budget import Estimate, Measure, characters_for, fair_shares

PromptStage = Literal["describe", "profile"]
Layout = Literal["elements", "facts"]
ESTIMATE = Estimate()
_NAMES = {"describe": {"category", "words", "item"}, "profile": {"category", "words", "items", "order"}}
_NEEDED = {"describe": set[str](), "profile": {"items"}}
_FIELDS: Mapping[str, type] = {"name": str, "version": int, "ask": str, "system": str, "text": str, "retries": list}
# Keys that a template may leave out, and what they are then.
_OPTIONAL: Mapping[str, str | int | bool | list[Any]] = {
    "layout": "elements",
    "opening": "",
    "sentences": 0,
    "tokens": 0,
    "closed": False,
    "examples": [],
}
_LAYOUTS = ("elements", "facts")
_EXAMPLE = {"items", "answer"}
_WORD = re.compile(r"[^\s.,:;]+")
_PLACE = re.compile(r"\{(\w+)\}")

# The full-width and small forms are here because a tokenizer may fold them into the plain ones.
_BRACKETS = {
    **dict.fromkeys("<\uff1c\ufe64", "\u2039"),
    **dict.fromkeys(">\uff1e\ufe65", "\u203a"),
    **dict.fromkeys("[\uff3b", "("),
    **dict.fromkeys("]\uff3d", ")"),
}
_UNSEEN = ("Cc", "Cf", "Cs", "Co", "Zl", "Zp")  # controls, bidi and zero-width marks, surrogates, private use
_JOINERS = "\u200c\u200d"  # words of several scripts, and emoji, need them
_LONGEST = 1 << 16  # characters that are looked at, however long a field is


class _Plain(dict[int, str]):
    """A translation table filled once a character: profiles quote hundreds of millions of them."""

    def __missing__(self, code: int) -> str:
        character = chr(code)
        unseen = unicodedata.category(character) in _UNSEEN and character not in _JOINERS
        self[code] = " " if unseen else _BRACKETS.get(character, character)
        return self[code]


_PLAIN = _Plain()


def neutralize(text: str) -> str:
    """Return one line of plain text that no chat template, tokenizer or delimiter takes for anything else."""
    return " ".join(text[:_LONGEST].translate(_PLAIN).split())


def element(
    name: str, fields: Sequence[tuple[str, str]], tokens: int, attributes: str = "", measure: Measure = ESTIMATE
) -> str:
    """Return `<name>`, a line a field, `</name>`; empty fields are left out.

    The fields share the tokens fairly, so a long description never crowds out what the pictures show.

    Args:
        name: of the element.
        fields: labels and texts, in order.
        tokens: of all fields together.
        attributes: put after the name, with a leading space.
        measure: of tokens.
    """
    lines = [f"{label}: {short}" for label, short in _fitted(fields, tokens, measure)]
    return "\n".join([f"<{name}{attributes}>", *(lines or ["(nothing is known)"]), f"</{name}>"])


def _fitted(fields: Sequence[tuple[str, str]], tokens: int, measure: Measure) -> list[tuple[str, str]]:
    """Return the fields that hold a text, each cut to its fair share."""
    plain = [(label, neutralize(text[: characters_for(tokens)])) for label, text in fields]
    filled = [(label, text) for label, text in plain if text]
    shares = fair_shares([measure.count(text) for _, text in filled], tokens)
    cut = ((label, measure.shorten(text, share)) for (label, text), share in zip(filled, shares, strict=True))
    return [(label, short) for label, short in cut if short]


@dataclass(frozen=True, slots=True)
class Template:
    """One wording.

    Attributes:
        name, version: for people; the hash is over everything.
        stage: the stage that it is for; the key `ask` of the file.
        system: the system turn, may be empty.
        text: the user's turn; {category}, {words}, and {item} (describe) or {items} and {order} (profile).
        retries: added for the second, third, ... attempt after an answer that cannot be used.
        layout: "elements", an element per item; "facts", a line of what stands out of the history.
        opening: the first words of the answer, which the model goes on from; engines of servers leave them out.
        sentences: of one paragraph that are kept of an answer; small models go on without end. 0: all.
        tokens: new ones of an answer, at most; 0: as many as the stage allows.
        closed: an answer has the words of its items alone, and those that all examples' answers share.
        examples: items and the answer to them, put before the request as earlier turns.
    """

    name: str
    version: int
    stage: PromptStage
    system: str
    text: str
    retries: tuple[str, ...]
    layout: Layout = "elements"
    opening: str = ""
    sentences: int = 0
    tokens: int = 0
    closed: bool = False
    examples: tuple[tuple[str, str], ...] = ()

    @property
    def digest(self) -> str:
        """Return the SHA-256 of the whole wording."""
        # A key that is left out leaves the digest as it was before there was such a key.
        own = {key: value for key in _OPTIONAL if (value := getattr(self, key)) not in (_OPTIONAL[key], ())}
        return digests.hash_value(
            {
                "name": self.name,
                "version": self.version,
                "ask": self.stage,
                "system": self.system,
                "text": self.text,
                "retries": self.retries,
            }
            | own
        )

    @property
    def wording(self) -> str:
        """Return all words of a prompt beside its data, examples included."""
        turns = (f"{self.text} {items} {answer}" for items, answer in self.examples)
        return " ".join((self.system, *turns, self.text, self.opening))

    @property
    def has_item(self) -> bool:
        """Return whether the item's own text is part of the prompt."""
        return "item" in _PLACE.findall(self.text)

    def request(self, values: Mapping[str, str], images: tuple[Path, ...] = ()) -> ChatRequest:
        """Return the prompt with the data in its places; `values` must be neutralized already."""
        examples = tuple((_fill(self.text, {**values, "items": items}), answer) for items, answer in self.examples)
        return ChatRequest(
            text=_fill(self.text, values),
            system=_fill(self.system, values),
            images=images,
            opening=self.opening,
            sentences=self.sentences,
            examples=examples,
            words=self._words(values["items"]) if self.closed else (),
        )

    def _words(self, items: str) -> tuple[str, ...]:
        """Return the different words of the items, and those that the answers of all examples share."""
        answers = [set(_WORD.findall(answer)) for _, answer in self.examples]
        return tuple(sorted({*_WORD.findall(items), *(set.intersection(*answers) if answers else ())}))

    def retry(self, request: ChatRequest, attempt: int, values: Mapping[str, str]) -> ChatRequest:
        """Return a request for another attempt.

        Args:
            request: the first attempt's.
            attempt: how many attempts have failed, from 1.
            values: of the template's places.
        """
        addition = _fill(self.retries[(attempt - 1) % len(self.retries)], values)
        return replace(request, text=f"{request.text}\n\n{addition}")


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place.group(1)], text).strip()


def load_template(name: str, stage: PromptStage) -> Template:
    """Return a template that ships, by name, or the user's own, by the path of a .toml file.

    Raises:
        ConfigError: there is none of that name, or the file is no template for this stage.
    """
    if name.endswith(".toml"):
        source = name
        text = _read(Path(name))
    else:
        known = shipped_templates(stage)
        if name not in known:
            raise ConfigError(
                f"no {stage} template {name!r}{near_miss(name, known)}; there are {', '.join(known)}, or give the path "
                "of a .toml file"
            )
        source = f"{stage}-{name}.toml"
        text = (files("mllmrec.reason") / "templates" / source).read_text(encoding="utf-8")
    try:
        return _checked(tomllib.loads(text), stage, source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}") from error


def standard_template(name: str, *, small: bool = False) -> str:
    """Return the profile template that "auto" means, a plain one for a `small` model; any other name as it is."""
    return name if name != "auto" else "plain" if small else "preferences"


def shipped_templates(stage: PromptStage) -> list[str]:
    """Return the names of the templates that ship for a stage."""
    folder = files("mllmrec.reason") / "templates"
    names = [file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")]
    return sorted(name.removeprefix(f"{stage}-") for name in names if name.startswith(f"{stage}-"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the template {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the template {path} is not UTF-8") from error


def _checked(values: dict[str, Any], stage: PromptStage, source: str) -> Template:
    for key in values.keys() - _FIELDS.keys() - _OPTIONAL.keys():
        raise ConfigError(f"{source}: unknown key {key!r}{near_miss(key, [*_FIELDS, *_OPTIONAL])}")
    own = _optional(values, source)
    for key, kind in _FIELDS.items():
        if not isinstance(values.get(key), kind):
            raise ConfigError(f"{source}: {key} must be a {kind.__name__}; got {values.get(key)!r}")
    if values["ask"] != stage:
        raise ConfigError(f"{source} has ask = {values['ask']!r}; the stage needs a template with ask = {stage!r}")
    retries = values["retries"]
    if not retries or not all(isinstance(text, str) for text in retries):
        raise ConfigError(f"{source}: retries must hold at least one text")
    parts = [values["system"], values["text"], *retries]
    used = {place for part in parts for place in _PLACE.findall(part)}
    for place in used - _NAMES[stage]:
        raise ConfigError(f"{source}: unknown place {{{place}}}; there are {_listed(_NAMES[stage])}")
    for place in _NEEDED[stage] - set(_PLACE.findall(values["text"])):
        raise ConfigError(f"{source}: the text must hold {{{place}}}")
    return Template(
        name=values["name"],
        version=values["version"],
        stage=stage,
        system=values["system"],
        text=values["text"].strip(),
        retries=tuple(retries),
        **own,
    )


def _optional(values: Mapping[str, Any], source: str) -> dict[str, Any]:
    """Return the settings that a template may leave out."""
    own = {key: values.get(key, default) for key, default in _OPTIONAL.items()}
    for key, value in own.items():
        kind = type(_OPTIONAL[key])
        if type(value) is not kind or (isinstance(value, int) and value < 0):
            raise ConfigError(f"{source}: {key} must be a {kind.__name__}; got {value!r}")
    if own["layout"] not in _LAYOUTS:
        raise ConfigError(f"{source}: layout must be {' or '.join(_LAYOUTS)}; got {own['layout']!r}")
    for example in own["examples"]:
        if not isinstance(example, dict) or example.keys() != _EXAMPLE:
            raise ConfigError(f"{source}: each of examples must have items and answer; got {example!r}")
    return own | {"examples": tuple((str(one["items"]), str(one["answer"])) for one in own["examples"])}


def _listed(names: set[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))
