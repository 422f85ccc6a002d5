"""The connection to a Ray cluster: several machines that search or embed together.

Ray is needed where it is asked for, and nowhere else. A cluster is started with `ray start --head --port 6379` on one
machine and `ray start --address HOST:6379` on each that joins, before or while it is used. Every machine has this
project and the same releases of Python and Ray, and finds index, videos and encoder under the same names: on shared
or object storage. Whoever can reach a cluster can run programs on it: keep its ports within a private network.
"""

import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import Any

from dits.common.errors import ClusterError

_SECONDS_TO_CONNECT = 10


@contextmanager
def connected(address: str) -> Iterator[Any]:
    """Ray's module, connected to a cluster until the block ends; a connection that is there already is kept.

    Args:
        address: HOST:PORT; "auto" finds a cluster that this machine is part of.

    Raises:
        ClusterError: Ray is not installed, or there is no cluster, or it runs other releases of Python or Ray.
    """
    ray = imported()
    if ray.is_initialized():
        yield ray
        return
    _check(address)
    # Ray prints what happens to machines, which its log files hold as well. Standard output is for results.
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        try:
            with _no_words():
                ray.init(address=address, log_to_driver=False, logging_level="CRITICAL")
        except (ConnectionError, RuntimeError, ValueError, OSError) as error:
            raise ClusterError(_why(address, error)) from error
        try:
            yield ray
        finally:
            ray.shutdown()


def imported() -> Any:
    """Ray's module, which is told to send nobody statistics of its use.

    Raises:
        ClusterError: Ray is not installed.
    """
    os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # what asks for no GPU keeps the environment
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # what goes wrong is said in sentences here
    try:
        import ray
    except ImportError as error:
        raise ClusterError(
            'Several machines are used through Ray, which is not installed: pip install "ray[data]" on each of them.'
        ) from error
    return ray


def living(ray: Any, kind: str) -> list[float]:
    """How many units of a resource, "CPU" or "GPU", each machine has that is there and has any."""
    amounts = (node["Resources"].get(kind, 0.0) for node in ray.nodes() if node["Alive"])
    return [amount for amount in amounts if amount > 0]


def reason_of(error: Exception) -> str:
    """What a task or an actor raised, without the way it took; no full stop."""
    cause = getattr(error, "cause", None) or error
    lines = str(cause).strip().splitlines() or [type(cause).__name__]
    return " ".join(lines[-1].split())[:300].rstrip(".")


@contextmanager
def _no_words() -> Iterator[None]:
    """Nothing gets to the error stream, not even from native code, which says there that it is told to be quiet."""
    kept = os.dup(2)
    try:
        with open(os.devnull, "w") as nowhere:
            os.dup2(nowhere.fileno(), 2)
        yield
    finally:
        os.dup2(kept, 2)
        os.close(kept)


def _check(address: str) -> None:
    """Says within seconds that nothing listens: Ray would wait for minutes."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if address in ("auto", "local"):
        return
    if not host or not port.isdigit():
        raise ClusterError(f"'{address}' is no address of a Ray cluster: give HOST:PORT, or auto.")
    try:
        socket.create_connection((host, int(port)), _SECONDS_TO_CONNECT).close()
    except (OSError, OverflowError) as error:
        raise ClusterError(_why(address, error)) from error


def _why(address: str, error: Exception) -> str:
    reason = " ".join(str(error).split())[:200].rstrip(".")
    return (
        f"The Ray cluster at {address} cannot be used ({reason}): start one with `ray start --head`, and give "
        "HOST:PORT as it prints it."
    )
