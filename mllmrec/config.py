"""One frozen config per stage and per engine; defaults live here and nowhere else.

A value comes from the first that names it: `--set stage.key=value`, the run's TOML file, the environment
(`MLLMREC_STAGE__KEY`, for what belongs to a machine, such as a device), the default. A key that no stage
knows is an error.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any, Literal, get_args, get_origin

from pydantic import (
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    SerializeAsAny,
    ValidationError,
)
from pydantic_settings import BaseSettings, SettingsConfigDict, SettingsError

from mllmrec.engine_config import ServerConfig, TransformersConfig
from mllmrec.errors import ConfigError, near_miss
from mllmrec.foundation.settings import assign, check_variables, merge, read_toml, toml_lines

LEAKY = "LEAKY"  # in every file name of a run whose profiles saw held-out interactions
_PREFIX = "MLLMREC_"
_OTHER_VARIABLES = ("CACHE", "IMAGES")  # folders and files that are no part of a run
_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]
Cutoff = Annotated[int, Field(gt=0, lt=1 << 31)]  # ranks are int32


Share = Annotated[float, Field(ge=0, le=1)]
Engine = Literal["extractive", "transformers", "openai"]
Device = Literal["auto", "cpu", "cuda"]


class DescribeConfig(BaseModel):
    """Item images -> text."""

    model_config = _FROZEN
    engine: Engine = "extractive"
    images: bool = True  # False: items are only their catalogue text
    # What follows is for engines with a model.
    model: str = ""  # a Hugging Face name or a folder; for "openai" the server's name of it
    template: str = "attributes"  # one that ships, or the path of a .toml file
    category: str = ""  # what the shop sells; empty: its own commonest category
    words: Positive = 100  # words of an answer; a place of the template
    max_new_tokens: Positive = 192
    item_tokens: Positive = 160  # estimated tokens of the item's own text, where the template has it
    max_images: Positive = 4  # pictures per item; of more, so many spread evenly
    retries: Count = 2  # attempts after an answer that cannot be used
    max_failures: Share = 0.2  # a larger share of unusable and failed answers stops the run


class ProfileConfig(BaseModel):
    """Training histories -> preference profiles."""

    model_config = _FROZEN
    engine: Engine = "extractive"
    kind: Literal["text", "mean", "hidden"] = "text"  # mean: of the items' vectors; hidden: of the model's states
    history: Literal["train", "all"] = "train"  # all: the paper's leak, for study; marks the run LEAKY
    max_items: Positive = 100  # the newest items of a history that a profile reads
    terms: Positive = 12  # how many of a user's own words a profile of the extractive engine names
    # What follows is for engines with a model.
    model: str = ""  # empty: the one that describes
    template: str = "auto"  # preferences, or plain for a small model; one that ships, or the path of a .toml file
    category: str = ""  # what the shop sells; empty: its own commonest category
    words: Positive = 100  # words of an answer; a place of the template
    max_new_tokens: Positive = 192
    max_tokens: Count = 0  # tokens of a history, the oldest items go first; 0: 3,000, of a small model 128
    item_tokens: Count = 0  # tokens of one item of it; 0: 128, of a small model 12
    seconds: Annotated[float, Field(ge=0)] = 0.0  # budget a user, on a CPU: shortens histories further; 0: none
    layer: Annotated[int, Field(ge=-1)] = -1  # whose states, of kind hidden; 0: the embeddings, -1: the last
    pooling: Literal["mean", "last"] = "mean"  # of kind hidden; mean: over the user's own part, last: the last token
    recency: Annotated[float, Field(ge=0)] = 0.0  # half-life in items: so many newer ones halve a share; 0: none
    retries: Count = 2  # attempts after an answer that cannot be used
    max_failures: Share = 0.2  # a larger share of unusable and failed answers stops the run


class EncodeConfig(BaseModel):
    """Texts -> unit vectors."""

    model_config = _FROZEN
    model: str = "all-MiniLM-L6-v2"  # a sentence-transformers name or folder
    backend: Literal["torch", "openvino", "onnx"] = "torch"  # what computes; the others run on CPUs, and need an extra
    precision: Literal["float32", "bfloat16"] = "float32"  # of the products; vectors are float32 either way
    features: str = ""  # instead of text: an item feature that came with the dataset
    max_pieces: Positive = 256  # word pieces the encoder reads, its two markers included
    batch_size: Positive = 64
    device: Device = "auto"


class GraphConfig(BaseModel):
    """Settings of the item graph (docs/method.md, section 2)."""

    model_config = _FROZEN
    mode: Literal["fixed", "paper"] = "fixed"
    semantic_neighbors: Count = 10  # K_s; in paper mode it counts the item itself
    cooccurrence_neighbors: Count = 10  # K_c
    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.6  # alpha: semantic edges below it are dropped
    window: Count = 0  # co-occurrences count up to so far apart, in the timestamps' unit (mostly seconds); 0: any
    device: Device = "auto"  # the graph is the same to the bit wherever it is built

    def identity(self) -> dict[str, Any]:
        """Return the settings that a graph depends on."""
        return self.model_dump(exclude={"device"})


class ModelConfig(BaseModel):
    """Settings of one kind of model; each kind has a subclass, in the file of its model."""

    model_config = _FROZEN
    kind: str

    def identity(self) -> dict[str, Any]:
        """Return every setting: two fits with equal ones, data and seed give the same model."""
        return self.model_dump()


class TrainConfig(BaseModel):
    """Training of networks by BPR, and the device of every model (docs/method.md, section 4)."""

    model_config = _FROZEN
    layers: Count = 1  # L, item-item propagation steps
    dim: Positive = 64  # d, width of the two towers
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Positive = 2048
    negative_pool: Count = 512  # items that a batch's negatives come from, in MLLMRec and SASRec; 0: any
    epochs: Positive = 1000
    patience: Positive = 20  # stop after more evaluations than this without improvement
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0  # at least this long between two checkpoints
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: products under autocast
    compile: bool = False  # the loss by torch.compile; on two cores it took twice the time, on a GPU it is untried
    device: Device = "auto"

    def identity(self, kind: str) -> dict[str, Any]:
        """Return what a fit of that kind depends on; only MLLMRec and SASRec draw negatives from a pool."""
        unread = set() if kind in ("mllmrec", "sasrec") else {"negative_pool"}
        return self.model_dump(exclude={"checkpoint_seconds", "device", *unread})


def _read_model(values: Any) -> ModelConfig:
    from mllmrec.models.registry import read_settings  # it imports the kind's own file, which imports this one

    return read_settings(values)


class EvaluateConfig(BaseModel):
    """Full ranking over the whole catalogue."""

    model_config = _FROZEN
    cutoffs: Annotated[tuple[Cutoff, ...], Field(min_length=1)] = (5, 10, 20, 50)
    mask_validation: bool = False  # True: validation items are not rankable at test time
    update_users: Count = 10_000  # judged after an update, beside popularity; 0: all, beside every baseline


class RecommendConfig(BaseModel):
    """Top-N for users, and similar items."""

    model_config = _FROZEN
    top: Positive = 20  # items per user
    similar: Positive = 10  # items per item
    users: tuple[str, ...] = ()  # the shop's ids of the users to serve; empty: all
    format: Literal["parquet", "jsonl"] = "parquet"


class Config(BaseSettings):
    """The whole run."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix=_PREFIX,
        env_nested_delimiter="__",
    )
    seed: Count = 999
    describe: DescribeConfig = DescribeConfig()
    profile: ProfileConfig = ProfileConfig()
    encode: EncodeConfig = EncodeConfig()
    graph: GraphConfig = GraphConfig()
    model: Annotated[SerializeAsAny[ModelConfig], BeforeValidator(_read_model)] = Field(
        default_factory=lambda: _read_model({})
    )
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    recommend: RecommendConfig = RecommendConfig()
    transformers: TransformersConfig = TransformersConfig()
    server: ServerConfig = ServerConfig()

    @property
    def leaky(self) -> bool:
        """Return whether held-out interactions reach the profiles."""
        return self.profile.history == "all"


def load_config(file: Path | None = None, assignments: Iterable[str] = ()) -> Config:
    """Return defaults and environment, overlaid by a TOML file and by `stage.key=value` assignments.

    Raises:
        ConfigError: the file cannot be read, a key or an environment variable is unknown, or a value does not fit.
    """
    variables = [name for name in os.environ if name.upper().startswith(_PREFIX)]
    if variables:
        names = [key.replace(".", "__").upper() for key in (*keys(), *Config.model_fields)]
        check_variables(variables, _PREFIX, [*names, *_OTHER_VARIABLES])
    return _overlay(read_toml(file) if file else {}, assignments)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """Return the config with `stage.key=value` assignments on top.

    Raises:
        ConfigError: as in load_config.
    """
    return _overlay(config.model_dump(), assignments)


def _overlay(values: dict[str, Any], assignments: Iterable[str]) -> Config:
    changes: dict[str, Any] = {}
    kinds = dict(_kinds(Config, ""))
    lists = {key for key, kind in kinds.items() if get_origin(kind) is tuple}
    texts = {key for key, kind in kinds.items() if kind is str or str in get_args(kind)}
    for assignment in assignments:
        assign(changes, assignment, texts=texts, lists=lists)
    values = merge(_without_other_kind(values, changes), changes)
    with explain_errors():
        return Config(**values)


@contextmanager
def explain_errors(prefix: str = "") -> Iterator[None]:
    """Turn pydantic's errors inside the block into one ConfigError; keys start with `prefix`."""
    try:
        yield
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail, prefix) for detail in error.errors())) from error
    except SettingsError as error:
        raise ConfigError(f'{error}; lists in environment variables are JSON, such as ["u001", "u002"]') from error


def _without_other_kind(values: Mapping[str, Any], changes: Mapping[str, Any]) -> Mapping[str, Any]:
    """Return `values` without the settings of their model if `changes` name another kind of model."""
    before, after = (each.get("model", {}) for each in (values, changes))
    if not isinstance(before, dict) or not isinstance(after, dict):
        return values
    kept = "kind" not in after or before.get("kind", default_kind()) == after["kind"]
    return values if kept else {**values, "model": {}}


def default_kind() -> str:
    """Return the kind of model that a config without one means."""
    from mllmrec.models.registry import DEFAULT

    return DEFAULT


def default_values(kind: str) -> dict[str, Any]:
    """Return every default of a config whose model is of this kind, JSON-like."""
    return Config.model_construct(model=_read_model({"kind": kind})).model_dump(mode="json")


def keys() -> list[str]:
    """Return every key as `stage.key`, those of every kind of model included."""
    from mllmrec.models.registry import settings_names

    return [*(key for key, _ in _kinds(Config, "")), *(f"model.{name}" for name in settings_names())]


def _kinds(model: type[BaseModel], prefix: str) -> Iterator[tuple[str, Any]]:
    """Return every key and the type of its value, without those of the model, which depend on its kind."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if inner is ModelConfig:
            continue
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from _kinds(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", inner


def _explain(detail: Any, prefix: str) -> str:
    key = prefix + ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown config key {key!r}{near_miss(key, [*keys(), *Config.model_fields])}"
    return f"config key {key!r}: {detail['msg']}; got {detail['input']!r}"


def to_toml(config: Config) -> str:
    """Return the whole config as TOML that `load_config` reads back."""
    return "\n".join(toml_lines(config.model_dump(mode="json"))) + "\n"
