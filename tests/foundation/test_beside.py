"""A function beside its caller: its result, its error, and the end of a program that does not wait for it."""

from __future__ import annotations

import subprocess
import sys
from threading import Event

import pytest

from mllmrec.foundation.beside import start_beside


def test_the_result_and_the_error_of_a_function_come_back() -> None:
    go_on = Event()
    future = start_beside(lambda: go_on.wait(30) and 7)
    assert not future.done()
    go_on.set()
    assert future.result(30) == 7
    with pytest.raises(ZeroDivisionError):
        start_beside(lambda: 1 // 0).result(30)


def test_a_program_ends_while_the_function_still_works() -> None:
    code = "import time; from mllmrec.foundation.beside import start_beside; start_beside(lambda: time.sleep(120))"
    assert subprocess.run([sys.executable, "-c", code], timeout=60, check=False).returncode == 0
