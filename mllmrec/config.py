"""One frozen config a stage, and one an engine; defaults live here and nowhere else.

A value comes from the first that names it: `--set stage.key=value`, the run's TOML file, the environment
(`MLLMREC_STAGE__KEY`, for what belongs to a machine, such as a device), the default. A key that no stage
knows is an error.
"""

from __future__ import annotations

import json
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator
from pydantic_settings import BaseSettings, SettingsConfigDict

from mllmrec.errors import ConfigError, near_miss
from mllmrec.reason.engines.openai_config import ServerConfig

LEAKY = "LEAKY"  # in every file name of a run whose profiles saw held-out interactions
_FROZEN = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

Positive = Annotated[int, Field(gt=0)]
Count = Annotated[int, Field(ge=0)]


Share = Annotated[float, Field(ge=0, le=1)]
Engine = Literal["extractive", "transformers", "openai"]
Device = Literal["auto", "cpu", "cuda"]


class DescribeConfig(BaseModel):
    """Item images -> text (method 2.1)."""

    model_config = _FROZEN
    engine: Engine = "extractive"
    images: bool = True  # False: items are their catalogue text alone
    # What follows is for engines that ask a model.
    model: str = ""  # a Hugging Face name or a folder; for "openai" the server's name of it
    template: str = "attributes"  # one that ships, or the path of a .toml file
    category: str = ""  # what the shop sells; empty: its own commonest category
    words: Positive = 100  # words an answer may have, as the template asks for them
    max_new_tokens: Positive = 192
    item_tokens: Positive = 160  # estimated tokens of the item's own text, where the template has it
    max_images: Positive = 4  # pictures an item; of more, so many spread evenly
    retries: Count = 2  # attempts after an answer that cannot be used
    max_failures: Share = 0.2  # a larger share of unusable and failed answers stops the run


class ProfileConfig(BaseModel):
    """Training histories -> preference profiles (method 2.3)."""

    model_config = _FROZEN
    engine: Engine = "extractive"
    kind: Literal["text", "mean", "hidden"] = "text"  # mean: of the items' vectors; hidden: of the model's states
    history: Literal["train", "all"] = "train"  # all: the paper's leak, for study; marks the run LEAKY
    max_items: Positive = 100  # the newest items of a history that a profile reads
    terms: Positive = 12  # how many of a user's own words a profile of the extractive engine names
    # What follows is for engines that ask a model.
    model: str = ""  # empty: the one that describes
    template: str = "preferences"  # one that ships, or the path of a .toml file
    category: str = ""  # what the shop sells; empty: its own commonest category
    words: Positive = 100  # words an answer may have, as the template asks for them
    max_new_tokens: Positive = 192
    max_tokens: Positive = 3000  # estimated tokens of a history; the oldest items go first
    item_tokens: Positive = 128  # estimated tokens of one item of it
    recency: Annotated[float, Field(ge=0)] = 0.0  # half-life in items: so many newer ones halve a share; 0: none
    retries: Count = 2  # attempts after an answer that cannot be used
    max_failures: Share = 0.2  # a larger share of unusable and failed answers stops the run

    @model_validator(mode="before")
    @classmethod
    def _mode_is_kind(cls, values: Any) -> Any:
        """`profile.mode` is read as `profile.kind`."""
        if isinstance(values, dict) and "mode" in values and "kind" not in values:
            return {("kind" if key == "mode" else key): value for key, value in values.items()}
        return values


class TransformersConfig(BaseModel):
    """Generation in this process, for describe and profile alike."""

    model_config = _FROZEN
    revision: str = "main"  # of a model from the hub
    backend: Literal["torch", "openvino"] = "torch"  # openvino: on CPUs, converted when first asked for; an extra
    device: Device = "auto"
    dtype: Literal["auto", "float32", "bfloat16", "float16"] = "auto"  # auto: bfloat16 on a GPU, float32 on a CPU
    quantise: Literal["none", "int8", "int4"] = "none"  # weights; by optimum-quanto, or by the backend's own tool
    attention: Literal["auto", "sdpa", "eager", "flash_attention_2"] = "auto"
    kv_cache: Literal["dynamic", "static"] = "dynamic"  # static: of a fixed size, which transformers compiles on a GPU
    batch_size: Count = 0  # requests at once, at most; 0: 16 on a CPU, 128 on a GPU
    batch_tokens: Count = 0  # tokens at once, padding included; 0: 16,384 on a CPU, half the free memory on a GPU
    max_pixels: Positive = 200_704  # of a picture, as the model sees it: 448 x 448
    temperature: Annotated[float, Field(ge=0)] = 0.0  # 0: greedy
    top_p: Annotated[float, Field(gt=0, le=1)] = 1.0
    repetition_penalty: Annotated[float, Field(ge=1)] = 1.0


class EncodeConfig(BaseModel):
    """Texts -> unit vectors (method 2.4)."""

    model_config = _FROZEN
    model: str = "all-MiniLM-L6-v2"  # a sentence-transformers name or folder
    backend: Literal["torch", "openvino", "onnx"] = "torch"  # what computes; the others run on CPUs, and need an extra
    features: str = ""  # instead of text: an item feature that came with the dataset
    max_pieces: Positive = 256  # word pieces the encoder reads, its two markers included
    batch_size: Positive = 64
    device: Device = "auto"


class GraphConfig(BaseModel):
    """Vectors and training interactions -> item graph (method 2.5-2.7)."""

    model_config = _FROZEN
    mode: Literal["fixed", "paper"] = "fixed"
    semantic_neighbours: Count = 10  # K_s; in paper mode it counts the item itself
    cooccurrence_neighbours: Count = 10  # K_c
    threshold: Annotated[float, Field(ge=-1, le=1)] = 0.6  # alpha: semantic edges below it are dropped
    window: Count = 0  # co-occurrences count up to so far apart, in the timestamps' unit (mostly seconds); 0: any
    device: Device = "auto"  # the graph is the same to the bit wherever it is built

    def identity(self) -> dict[str, Any]:
        """What a graph is known by."""
        return self.model_dump(exclude={"device"})


Kind = Literal["blend", "mllmrec", "ridge", "ease", "ials", "item-knn", "bpr", "lightgcn", "vbpr", "freedom"]
Weighting = Literal["cosine", "tfidf", "bm25"]
_LATER: dict[str, Kind] = {"sweeps": "ials", "neighbours": "item-knn", "weighting": "item-knn"}  # who reads it


class ModelConfig(BaseModel):
    """Which model is trained, and what its kind adds to the train stage; a kind reads only what it names."""

    model_config = _FROZEN
    kind: Kind = "blend"  # "mllmrec" is the paper's
    reasoning: bool = True  # mllmrec: False puts the mean of a user's items in place of the profile
    user_item_layers: Count = 0  # mllmrec: GCN_UI of method 2.8; 2 in the paper's ablation
    ids: bool = False  # mllmrec: a learned embedding is added to each tower
    refined: bool = False  # lightgcn, freedom: graph refinement (+GR), our item graph in place of none or theirs
    gcn_layers: Count = 2  # lightgcn, freedom: user-item propagation steps
    decay: Annotated[float, Field(ge=0)] = 1e-4  # bpr, lightgcn, vbpr, freedom: L2 of a batch's embeddings
    penalty: Literal["squares", "norms"] = "squares"  # bpr, lightgcn: of which decay is the weight; RecBole: norms
    bias: bool = True  # bpr: items have a bias
    edge_keep: Annotated[float, Field(gt=0, le=1)] = 0.2  # freedom: share of user-item edges an epoch keeps
    feature_loss: Annotated[float, Field(ge=0)] = 1e-3  # freedom: weight of the loss of projected features
    cooccurrence_support: Count = 100  # ridge, blend: neighbours by Jaccard
    semantic_support: Count = 100  # ridge, blend: neighbours by cosine
    content_weight: Annotated[float, Field(ge=0)] = 20.0  # ridge, ease: w of the item vectors' Gram matrix
    regularisation: Annotated[float, Field(gt=0)] = 50.0  # ridge, ease: lambda
    rank: Positive = 64  # ials, blend: width of the factors; blend: of the low-pass filter, at most
    unobserved: Annotated[float, Field(ge=0)] = 1.0  # ials: weight of all pairs together, over that of the observed
    shrinkage: Annotated[float, Field(gt=0)] = 0.05  # ials: lambda
    dense_gib: Annotated[float, Field(gt=0)] = 8.0  # ease: the most that its dense I x I matrices may take
    sweeps: Positive = 16  # ials: how often both tables of factors are solved
    neighbours: Positive = 200  # item-knn: how many of each item are kept
    weighting: Weighting = "tfidf"  # item-knn: tfidf and bm25 count users of many items less

    def identity(self) -> dict[str, Any]:
        """What a fit is known by. A later setting counts for its own kind alone, so that other kinds' stay known."""
        return self.model_dump(exclude={name for name, kind in _LATER.items() if kind != self.kind})


class TrainConfig(BaseModel):
    """Projectors trained by BPR over frozen, propagated features (method 2.7-2.9)."""

    model_config = _FROZEN
    layers: Count = 1  # L, item-item propagation steps
    dim: Positive = 64  # d, width of the two towers
    learning_rate: Annotated[float, Field(gt=0)] = 1e-3
    batch_size: Positive = 2048
    negative_pool: Count = 512  # items that the negatives of a batch come from, where rows are projected; 0: any
    epochs: Positive = 1000
    patience: Positive = 20  # evaluations without improvement that are still borne
    checkpoint_seconds: Annotated[float, Field(ge=0)] = 20.0
    precision: Literal["float32", "bfloat16"] = "float32"  # bfloat16: products under autocast
    compile: bool = False  # the loss by torch.compile; on two cores it took twice the time, on a GPU it is untried
    device: Device = "auto"

    def identity(self, kind: Kind) -> dict[str, Any]:
        """What a fit of a model of that kind is known by; only MLLMRec draws negatives from a pool."""
        unread = set() if kind == "mllmrec" else {"negative_pool"}
        return self.model_dump(exclude={"checkpoint_seconds", "device", *unread})


class EvaluateConfig(BaseModel):
    """Full ranking over the whole catalogue (method section 5)."""

    model_config = _FROZEN
    cutoffs: Annotated[tuple[Positive, ...], Field(min_length=1)] = (5, 10, 20, 50)
    mask_validation: bool = False  # True: validation items are not rankable at test time


class RecommendConfig(BaseModel):
    """Top-N for users, and similar items."""

    model_config = _FROZEN
    top: Positive = 20  # items a user
    similar: Positive = 10  # items an item
    users: tuple[str, ...] = ()  # the shop's ids of the users to serve; empty: all
    format: Literal["parquet", "jsonl"] = "parquet"


class Config(BaseSettings):
    """The whole run."""

    model_config = SettingsConfigDict(
        frozen=True,
        extra="forbid",
        allow_inf_nan=False,
        env_prefix="MLLMREC_",
        env_nested_delimiter="__",
    )
    seed: Count = 999
    describe: DescribeConfig = DescribeConfig()
    profile: ProfileConfig = ProfileConfig()
    encode: EncodeConfig = EncodeConfig()
    graph: GraphConfig = GraphConfig()
    model: ModelConfig = ModelConfig()
    train: TrainConfig = TrainConfig()
    evaluate: EvaluateConfig = EvaluateConfig()
    recommend: RecommendConfig = RecommendConfig()
    transformers: TransformersConfig = TransformersConfig()
    server: ServerConfig = ServerConfig()

    @property
    def leaky(self) -> bool:
        """Whether held-out interactions reach the profiles."""
        return self.profile.history == "all"


def load_config(file: Path | None = None, assignments: Iterable[str] = ()) -> Config:
    """Defaults and environment, overlaid by a TOML file and by `stage.key=value` assignments.

    Raises:
        ConfigError: the file cannot be read, a key is unknown, or a value does not fit.
    """
    return _overlay(_read_toml(file) if file else {}, assignments)


def override(config: Config, assignments: Iterable[str]) -> Config:
    """The config with `stage.key=value` assignments on top.

    Raises:
        ConfigError: as in load_config.
    """
    return _overlay(config.model_dump(), assignments)


def _overlay(values: dict[str, Any], assignments: Iterable[str]) -> Config:
    for assignment in assignments:
        _assign(values, assignment)
    try:
        return Config(**values)
    except ValidationError as error:
        raise ConfigError("; ".join(_explain(detail) for detail in error.errors())) from error


def keys(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[str]:
    """Every key as `stage.key`."""
    for name, field in model.model_fields.items():
        inner = field.annotation
        if isinstance(inner, type) and issubclass(inner, BaseModel):
            yield from keys(inner, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def _read_toml(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise ConfigError(f"cannot read the config {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"{file} is not TOML: {error}") from error


def _assign(values: dict[str, Any], assignment: str) -> None:
    """Set one `stage.key=value`; the value is read as TOML, or taken as text where it is none."""
    key, equals, text = assignment.partition("=")
    *stages, name = key.strip().split(".")
    if not equals or not name:
        raise ConfigError(f"cannot read --set {assignment!r}; write it as stage.key=value")
    for stage in stages:
        values = values.setdefault(stage, {})
        if not isinstance(values, dict):
            raise ConfigError(f"--set {assignment!r}: {stage!r} is a value, not a stage")
    try:
        values[name] = tomllib.loads(f"value = {text}")["value"]
    except tomllib.TOMLDecodeError:
        values[name] = text


def _explain(detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"])
    if detail["type"] == "extra_forbidden":
        return f"unknown config key {key!r}{near_miss(key, [*keys(), *Config.model_fields])}"
    return f"config key {key!r}: {detail['msg']}; got {detail['input']!r}"


def to_toml(config: Config) -> str:
    """The whole config as TOML that `load_config` reads back."""
    return "\n".join(toml_lines(config.model_dump(mode="json"))) + "\n"


def toml_lines(values: Mapping[str, Any]) -> list[str]:
    """Settings as lines of TOML, those without a stage first."""
    top = {key: value for key, value in values.items() if not isinstance(value, dict)}
    lines = [f"{key} = {json.dumps(value)}" for key, value in top.items()]
    for stage, settings in values.items():
        if isinstance(settings, dict):
            lines += ["", f"[{stage}]", *(f"{key} = {json.dumps(value)}" for key, value in settings.items())]
    return lines
