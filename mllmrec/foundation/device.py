"""Where a stage computes: on a GPU if one is asked for, or is there and nothing else is asked for."""

from __future__ import annotations

import torch

from mllmrec.config import Device
from mllmrec.errors import ConfigError

CPU = torch.device("cpu")


def resolve(wanted: Device, setting: str) -> torch.device:
    """The device of a setting such as train.device.

    Raises:
        ConfigError: a GPU is asked for and torch sees none.
    """
    present = torch.cuda.is_available()
    if wanted == "cuda" and not present:
        raise ConfigError(
            f"{setting}=cuda asks for a GPU, and torch sees none here; mllmrec doctor says why, and "
            f"{setting}=cpu does without one"
        )
    if wanted != "auto":
        return torch.device(wanted)
    return torch.device("cuda" if present else "cpu")
