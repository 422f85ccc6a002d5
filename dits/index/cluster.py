"""The connection to a Ray cluster: several machines that search or embed together.

Ray is needed only with --ray. Start a cluster with `ray start --head --port 6379` on one machine. Other machines join
with `ray start --address HOST:6379`, before or during use. Every machine needs this project and the same releases of
Python and Ray, and must find index, videos and encoder under the same names, on shared or object storage. Anyone who
can reach a cluster can run programs on it: keep its ports within a private network.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from dits.common.errors import ClusterError

_CONNECT_TIMEOUT = 10  # seconds


@contextmanager
def ray_connection(address: str) -> Iterator[Any]:
    """Yields the Ray module, connected to a cluster until the block ends. An existing connection is reused.

    Args:
        address: HOST:PORT; "auto" finds a cluster that this machine is part of.

    Raises:
        ClusterError: Ray is not installed, no cluster is found, or its releases of Python or Ray differ.
    """
    ray = import_ray()
    if ray.is_initialized():
        yield ray
        return
    _check_reachable(address)
    # Standard output is for results. Ray's messages about machines are also in its log files.
    with open(os.devnull, "w") as null, redirect_stdout(null):
        try:
            with _silent_stderr():
                ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ClusterError(_unusable(address, error)) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def import_ray() -> Any:
    """Imports Ray, with its usage statistics turned off.

    Raises:
        ClusterError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # tasks without a GPU keep the environment
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # errors are reported as ClusterError instead
    try:
        import ray
    except ImportError as error:
        raise ClusterError('Ray is not installed: run pip install "ray[data]" on every machine.') from error
    return ray


def units_per_machine(ray: Any, kind: str) -> list[float]:
    """The units of a resource, "CPU" or "GPU", of every live machine that has any."""
    amounts = (node["Resources"].get(kind, 0.0) for node in ray.nodes() if node["Alive"])
    return [amount for amount in amounts if amount > 0]


def reason_of(error: Exception) -> str:
    """The last line of the error of a task or an actor, without its traceback or a final full stop."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return " ".join(lines[-1].split())[:300].rstrip(".")


@contextmanager
def _silent_stderr() -> Iterator[None]:
    """Discards what is written to the error stream, including messages of native code."""
    saved = os.dup(2)
    try:
        with open(os.devnull, "w") as null:
            os.dup2(null.fileno(), 2)
        yield
    finally:
        os.dup2(saved, 2)
        os.close(saved)


def _check_reachable(address: str) -> None:
    """Fails within seconds if nothing listens at the address: Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdigit():
        raise ClusterError(f"'{address}' is not the address of a Ray cluster: give HOST:PORT, or auto.")
    try:
        socket.create_connection((host, int(port)), _CONNECT_TIMEOUT).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(_unusable(address, error)) from error


def _unusable(address: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return (
        f"The Ray cluster at {address} cannot be used ({reason}): start one with `ray start --head` and give the "
        "HOST:PORT that it prints."
    )
