"""Where the page is served: a port that is free, or a sentence why there is none."""

import errno
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager

from gradio.http_server import INITIAL_PORT_VALUE, LOCALHOST_NAME, TRY_NUM_PORTS

from dits.common.errors import DitsError, InputError, require


def free_port(host: str | None, port: int | None) -> int:
    """The port, or the first free one from 7860 where none is named.

    Raises:
        InputError: it is taken or may not be used, or the host is no address of this machine.
    """
    require(port is None or 0 < port < 65536, f"The port must be from 1 to 65535, not {port}.")
    hosts = dict.fromkeys((host or LOCALHOST_NAME, LOCALHOST_NAME))  # the latter is where Gradio looks as well
    first, last = (port, port) if port else (INITIAL_PORT_VALUE, INITIAL_PORT_VALUE + TRY_NUM_PORTS - 1)
    for candidate in range(first, last + 1):
        if all(_is_free(name, candidate) for name in hosts):
            return candidate
    if port:
        raise InputError(f"The port {port} is taken: end what listens there, or name another one with --port.")
    raise InputError(f"All ports from {first} to {last} are taken: name another one with --port.")


@contextmanager
def start_errors(port: int) -> Iterator[None]:
    """Turns what Gradio raises where it cannot serve a page on a port that was free into one sentence.

    Raises:
        DitsError: in the place of that.
    """
    try:
        yield
    except Exception as error:  # of all kinds, told apart by what they say
        if "Cannot find empty port" in str(error):
            raise DitsError(
                f"The page could not be served on port {port}: something else has just taken it, or the machine is too "
                "busy. Start again, or name another one with --port."
            ) from error
        if "ensure localhost is accessible" in str(error):
            raise DitsError(
                "The page cannot be reached from this machine itself: if you go through a proxy, set "
                "NO_PROXY=127.0.0.1,localhost and start again."
            ) from error
        raise


def _is_free(host: str, port: int) -> bool:
    try:
        family, kind, _, _, address = socket.getaddrinfo(host.strip("[]"), port, type=socket.SOCK_STREAM)[0]
        with socket.socket(family, kind) as probe:
            if os.name == "posix":  # where it only passes over what is left of closed connections
                probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            probe.bind(address)
    except OSError as error:
        if error.errno == errno.EADDRINUSE:
            return False
        if error.errno in (errno.EACCES, errno.EPERM):
            raise InputError(f"You may not serve on port {port}: name one above 1023 with --port.") from error
        raise InputError(
            f"This machine has no address '{host[:100]}': give --host one that it has, such as 127.0.0.1, or 0.0.0.0 "
            "for all of them."
        ) from error
    return True
