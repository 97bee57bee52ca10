"""What is asked: named, versioned templates, read from TOML; the hash of one is part of every cache key.

A template is instructions alone. What comes from the data is put in by name, in one pass, so that text with
braces in it is never read as a name.
"""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from importlib.resources import files
from pathlib import Path
from typing import Any, Literal

from mllmrec.dataset import Dataset
from mllmrec.errors import ConfigError, near_miss
from mllmrec.foundation import storage
from mllmrec.reason.chat import ChatRequest
from mllmrec.reason.quote import neutralise, shorten

Ask = Literal["describe", "profile"]
_NAMES = {"describe": {"category", "words", "item"}, "profile": {"category", "words", "items", "order"}}
_NEEDED = {"describe": set[str](), "profile": {"items"}}
_FIELDS: Mapping[str, type] = {"name": str, "version": int, "ask": str, "system": str, "text": str, "retries": list}
_PLACE = re.compile(r"\{(\w+)\}")
_CATEGORY_TOKENS = 24
_COMMON = 0.5  # a category that this share of the items has names the whole shop
_LISTED = 3  # categories that name a shop without such a one


@dataclass(frozen=True, slots=True)
class Template:
    """One wording.

    Attributes:
        name, version: for people; the hash is over everything.
        ask: the stage that it is for.
        system: the system turn, may be empty.
        text: the user's turn; {category}, {words}, and {item} (describe) or {items} and {order} (profile).
        retries: what is added for the second, third, ... attempt after an answer that cannot be used.
    """

    name: str
    version: int
    ask: Ask
    system: str
    text: str
    retries: tuple[str, ...]

    @property
    def digest(self) -> str:
        """SHA-256 of the whole wording."""
        return storage.hash_value(asdict(self))

    @property
    def wants_item(self) -> bool:
        """Whether the item's own text is part of the question."""
        return "item" in _PLACE.findall(self.text)

    def request(self, values: Mapping[str, str], images: tuple[Path, ...] = ()) -> ChatRequest:
        """The question with the data in its places; `values` must be neutralised already."""
        return ChatRequest(_fill(self.text, values), _fill(self.system, values), images)

    def again(self, request: ChatRequest, attempt: int, values: Mapping[str, str]) -> ChatRequest:
        """The question for the attempt after `attempt` failed ones, counted from 1."""
        added = _fill(self.retries[(attempt - 1) % len(self.retries)], values)
        return ChatRequest(f"{request.text}\n\n{added}", request.system, request.images)


def _fill(text: str, values: Mapping[str, str]) -> str:
    return _PLACE.sub(lambda place: values[place.group(1)], text).strip()


def load_template(name: str, ask: Ask) -> Template:
    """A template that ships, by name, or the user's own, by the path of a .toml file.

    Raises:
        ConfigError: there is none of that name, or the file is no template for this stage.
    """
    if name.endswith(".toml"):
        source = name
        text = _read(Path(name))
    else:
        known = shipped(ask)
        if name not in known:
            raise ConfigError(
                f"no {ask} template {name!r}{near_miss(name, known)}; there are {', '.join(known)}, or give the path "
                "of a .toml file"
            )
        source = f"{ask}-{name}.toml"
        text = (files("mllmrec.reason") / "templates" / source).read_text(encoding="utf-8")
    try:
        return _checked(tomllib.loads(text), ask, source)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source} is not TOML: {error}") from error


def shipped(ask: Ask) -> list[str]:
    """The names of the templates that ship for a stage."""
    folder = files("mllmrec.reason") / "templates"
    names = [file.name.removesuffix(".toml") for file in folder.iterdir() if file.name.endswith(".toml")]
    return sorted(name.removeprefix(f"{ask}-") for name in names if name.startswith(f"{ask}-"))


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read the template {path}: {error.strerror}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"the template {path} is not UTF-8") from error


def _checked(values: dict[str, Any], ask: Ask, source: str) -> Template:
    for key in values.keys() - _FIELDS.keys():
        raise ConfigError(f"{source}: unknown key {key!r}{near_miss(key, list(_FIELDS))}")
    for key, kind in _FIELDS.items():
        if not isinstance(values.get(key), kind):
            raise ConfigError(f"{source}: {key} must be a {kind.__name__}; got {values.get(key)!r}")
    if values["ask"] != ask:
        raise ConfigError(f"{source} asks {values['ask']!r}; wanted a template with ask = {ask!r}")
    retries = values["retries"]
    if not retries or not all(isinstance(text, str) for text in retries):
        raise ConfigError(f"{source}: retries must hold at least one text")
    parts = [values["system"], values["text"], *retries]
    used = {place for part in parts for place in _PLACE.findall(part)}
    for place in used - _NAMES[ask]:
        raise ConfigError(f"{source}: unknown place {{{place}}}; there are {_listed(_NAMES[ask])}")
    for place in _NEEDED[ask] - set(_PLACE.findall(values["text"])):
        raise ConfigError(f"{source}: the text must hold {{{place}}}")
    return Template(values["name"], values["version"], ask, values["system"], values["text"].strip(), tuple(retries))


def _listed(names: set[str]) -> str:
    return ", ".join(f"{{{name}}}" for name in sorted(names))


def category_of(dataset: Dataset) -> str:
    """What a shop sells, in its own words.

    The category that at least half of the items have in common, else the three commonest first categories,
    else the dataset's name.
    """
    paths = [path or [] for path in dataset.items["categories"].to_list()]
    counts = Counter(name for path in paths for name in dict.fromkeys(path))
    common = sorted((-count, name) for name, count in counts.items() if count >= _COMMON * len(paths))
    first = Counter(path[0] for path in paths if path)
    listed = ", ".join(name for _, name in sorted((-count, name) for name, count in first.items())[:_LISTED])
    return shorten(neutralise(common[0][1] if common else listed or dataset.name), _CATEGORY_TOKENS)
