"""The notebook runs from its first cell to its last, and ends in a picture."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parents[1]
NOTEBOOK = ROOT / "docs" / "shop-to-recommendations.ipynb"


def test_the_notebook_runs_and_draws_recommendations(tmp_path: Path) -> None:
    cells = json.loads(NOTEBOOK.read_text())["cells"]
    assert len(cells) == 10
    assert not any(cell.get("outputs") for cell in cells)
    script = "\n".join("".join(cell["source"]) for cell in cells if cell["cell_type"] == "code")
    environment = {
        **os.environ,
        "MPLBACKEND": "agg",
        "MLLMREC_CACHE": str(tmp_path / "cache.sqlite"),
        "MLLMREC_ENCODE__MAX_PIECES": "32",
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("", "kernels", "cli", "bench")),
    }
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    with Image.open(tmp_path / "recommendations.png") as picture:
        tones = np.unique(np.asarray(picture.convert("L").resize((64, 32))))
    assert len(tones) > 20  # more than white paper
