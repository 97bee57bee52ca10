"""The README's Python runs as it is printed, in a folder with a shop."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def test_the_python_of_the_readme_runs(shop: Path, tmp_path: Path) -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", (ROOT / "README.md").read_text(), flags=re.DOTALL | re.MULTILINE)
    assert len(blocks) == 1
    assert len(blocks[0].strip().splitlines()) <= 10
    shutil.copytree(shop, tmp_path / "shop")
    environment = {
        **os.environ,
        "MLLMREC_CACHE": str(tmp_path / "cache.sqlite"),
        "MLLMREC_ENCODE__MAX_PIECES": "32",
        "PYTHONPATH": os.pathsep.join(str(ROOT / folder) for folder in ("", "kernels", "cli", "bench")),
    }
    script = blocks[0] + "print(len(items[0]), items.dtype, scores.shape)\n"
    done = subprocess.run(
        [sys.executable, "-c", script], cwd=tmp_path, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "'ensemble'" in done.stdout
    assert done.stdout.splitlines()[-1] == "10 int32 (1, 10)"
