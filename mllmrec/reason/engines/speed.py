"""Time a model on this machine once, and remember it: plans and budgets of seconds are reckoned from it.

The times are kept in the user's cache folder. So a budget shortens the prompts of a rerun as it did before, and their
answers are found again.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path

from mllmrec.errors import MllmrecError
from mllmrec.foundation import digests, storage
from mllmrec.foundation.folders import user_cache_folder
from mllmrec.reason.engines.local_model import TransformersModel

_PROMPT, _STEPS, _ROUNDS = 192, 4, 2
_ROWS = 16  # of a step that is timed


@dataclass(frozen=True, slots=True)
class Speed:
    """The speed of a model, tokens per second.

    Attributes:
        prompt: read, one prompt at a time.
        answer: new ones, of all requests of a batch together.
    """

    prompt: float
    answer: float


def speed_of(model: TransformersModel) -> Speed | None:
    """Return the speed of a model on this machine, timed now where it is not known; None for another decoding."""
    import torch

    if not model.has_own_pass:
        return None
    threads = torch.get_num_threads()
    file = _folder() / f"{digests.hash_value([model.identity, threads])[:24]}.json"
    known = _read(file)
    if known is None:
        known = _time(model)
        storage.make_folder(file.parent, private=True)
        storage.write_json(file, asdict(known))
    return known


def _folder() -> Path:
    return user_cache_folder() / "speeds"


def _read(file: Path) -> Speed | None:
    """Return a speed that was written before; None if the file is none, or holds no speed."""
    try:
        values = storage.read_json(file)
        speed = Speed(float(values["prompt"]), float(values["answer"]))
    except (MllmrecError, OSError, KeyError, TypeError, ValueError):
        return None
    return speed if 0 < speed.prompt < float("inf") and 0 < speed.answer < float("inf") else None


def _time(model: TransformersModel) -> Speed:
    import torch

    network = model.network
    assert network is not None
    tokens = torch.arange(_PROMPT) % 64
    cache = network.allocate(_ROWS, _PROMPT + _STEPS)
    places = torch.full((_ROWS,), _PROMPT)
    with torch.inference_mode():
        reading = _fastest(lambda: network.read(tokens, cache, 0, 0))
        stepping = _fastest(lambda: [network.step(tokens[:_ROWS], cache, places + n) for n in range(_STEPS)])
    return Speed(_PROMPT / reading, _ROWS * _STEPS / stepping)


def _fastest(work: Callable[[], object]) -> float:
    """Return the seconds of the fastest of a few rounds, after one that warms up."""
    times = []
    for _ in range(_ROUNDS + 1):
        began = time.perf_counter()
        work()
        times.append(time.perf_counter() - began)
    return min(times[1:])
