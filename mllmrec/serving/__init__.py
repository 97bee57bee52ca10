"""Use a finished run: its settings, and lists for users and items that it did not know, without a new fit."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mllmrec.config import Config, EncodeConfig, explain_errors, load_config, override
from mllmrec.errors import ConfigError, InputError
from mllmrec.foundation import storage
from mllmrec.runs import Run
from mllmrec.runs.record import Artefact, marked


def run_config(run: Run, file: Path | None, assignments: Sequence[str]) -> Config:
    """Return the settings of a run, with others on top.

    Args:
        run: whose settings they are.
        file: TOML file that stands in the place of the run's settings; None: there is none.
        assignments: `stage.key=value` of the command line.

    Raises:
        ConfigError: a key is unknown or a value does not fit, in the run's record or on top of it.
    """
    if file is not None:
        return load_config(file, assignments)
    try:
        with explain_errors():
            config = Config(**run.record["config"])
    except ConfigError as error:
        raise ConfigError(f"{run.folder}/run.json has settings that this version does not know: {error}") from error
    return override(config, assignments)


def require_encoder(config: EncodeConfig, of: str, fix: str) -> None:
    """Refuse texts where the item vectors of a run came with its data.

    Args:
        config: of the run.
        of: whose texts they are, as the error names them.
        fix: what to do instead.

    Raises:
        InputError: the run has no encoder.
    """
    if config.features:
        raise InputError(
            f"the run's item vectors came with its data (encode.features={config.features}): there is no encoder for "
            f"{of}; {fix}"
        )


def save_lists(lists: Artefact, out: Path, *, leaky: bool) -> list[Path]:
    """Write lists into a folder; return the paths.

    Args:
        lists: tables.
        out: folder, made if it is not there.
        leaky: the run's profiles saw held-out interactions; every file name says so.
    """
    folder = storage.make_folder(out)
    return [folder / marked(name, leaky=leaky) for name in lists.save(lambda name: folder / marked(name, leaky=leaky))]
