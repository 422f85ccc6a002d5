"""Chooses a free port for the page, with one sentence for each error."""

import errno
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from gradio.http_server import INITIAL_PORT_VALUE, LOCALHOST_NAME, TRY_NUM_PORTS

from dits.common.errors import DitsError, InputError, require


def free_port(host: str | None, port: int | None) -> int:
    """Return `port`, or the first free port from 7860 if it is None.

    Raises:
        InputError: the port is taken or not permitted, or the host is not an address of this machine.
    """
    require(port is None or 0 < port < 65536, f"The port must be from 1 to 65535, not {port}.")
    hosts = dict.fromkeys((host or LOCALHOST_NAME, LOCALHOST_NAME))  # Gradio checks localhost too
    first, last = (port, port) if port else (INITIAL_PORT_VALUE, INITIAL_PORT_VALUE + TRY_NUM_PORTS - 1)
    for candidate in range(first, last + 1):
        if all(_is_free(name, candidate) for name in hosts):
            return candidate
    if port:
        raise InputError(
            f"The port {port} is taken: stop the program that uses it, or choose another port with --port."
        )
    raise InputError(f"All ports from {first} to {last} are taken: choose another one with --port.")


@contextmanager
def start_errors(port: int) -> Iterator[None]:
    """Replace Gradio's exceptions at the start of the server by one sentence.

    Raises:
        DitsError: the port was taken in the meantime, or the page cannot be reached from this machine.
    """
    try:
        yield
    except Exception as error:  # Gradio raises different types; only the texts distinguish them
        if "Cannot find empty port" in str(error):
            raise DitsError(
                f"The page could not be served on port {port}: another program has just taken it, or the machine is "
                "too busy. Start again, or choose another port with --port."
            ) from error
        if "ensure localhost is accessible" in str(error):
            raise DitsError(
                "The page cannot be reached from this machine itself: if you use a proxy, set "
                "NO_PROXY=127.0.0.1,localhost and start again."
            ) from error
        raise


def _is_free(host: str, port: int) -> bool:
    try:
        family, _, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        if error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(f"You are not allowed to use port {port}: choose one above 1023 with --port.") from error
        raise InputError(
            f"This machine has no address '{host[:100]}': set --host to one of its addresses, such as 127.0.0.1, or to "
            "0.0.0.0 for all of them."
        ) from error
    return True
