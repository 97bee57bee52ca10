"""Join a Ray cluster by its address, or say in one line why none answers."""

from __future__ import annotations

import logging
import socket
import sys
import time
from typing import Any
from urllib.parse import urlsplit

from mllmrec.errors import ConfigError, first_line

_CONNECT_SECONDS = 10.0
_CONNECTS = 3  # by ray://, where the head is too busy to start a server for us in its half minute
_PAUSE_SECONDS = 5.0


def _check_port(address: str) -> None:
    """Raise an OSError or ValueError where nobody listens, which Ray tries for half a minute."""
    parts = urlsplit(address)
    if not parts.hostname or not parts.port:
        raise ValueError("wanted ray://HOST:PORT, where PORT is mostly 10001")
    with socket.create_connection((parts.hostname, parts.port), timeout=_CONNECT_SECONDS):
        pass


def rpc_errors() -> tuple[type[Exception], ...]:
    """Return the errors of a connection by ray://, which Ray passes on as they are."""
    grpc = sys.modules.get("grpc")
    return (grpc.RpcError, ValueError) if grpc else ()


def is_of_connection(error: Exception) -> bool:
    """Return whether an error of these types is the connection's; a closed channel of gRPC raises a ValueError."""
    return type(error) is not ValueError or "Cannot invoke RPC" in str(error)


def connect(ray: Any, name: str) -> None:
    """Join a cluster.

    Raises:
        ConfigError: none answers.
    """
    address = name if name.startswith("ray://") else "auto"
    logging.getLogger("ray").setLevel(logging.CRITICAL)  # what matters of it is raised, and said in one line
    for attempt in range(_CONNECTS, 0, -1):
        try:
            if address == name:
                _check_port(name)
            ray.init(address=address, log_to_driver=False, configure_logging=False, logging_level=logging.CRITICAL)
        except (OSError, ValueError, RuntimeError) as error:  # ConnectionError is an OSError
            if isinstance(error, ConnectionAbortedError) and attempt > 1:
                time.sleep(_PAUSE_SECONDS)
                continue
            where = f"at {name}" if address == name else "on this machine, nor at $RAY_ADDRESS"
            raise ConfigError(
                f"no Ray cluster answers {where} ({_reason(error)}); start one with: ray start --head"
            ) from error
        return


def _reason(error: Exception) -> str:
    """Return the line of an error that says why: of a traceback that a head sends the last."""
    lines = str(error).strip().splitlines()
    return lines[-1][:300] if isinstance(error, ConnectionAbortedError) and lines else first_line(error)
