"""Notes who of a process, and of all that it starts, looks for an address outside this machine.

Python imports this by its name where PYTHONPATH holds this folder; notes go to the file that $OUTSIDE_LOG names.
"""

import ipaddress
import os
import sys
import traceback

LOG = os.environ.get("OUTSIDE_LOG")


def is_here(host):
    if isinstance(host, bytes):
        host = host.decode(errors="replace")
    if host in (None, "", "localhost"):
        return True
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return address.is_loopback or address.is_unspecified


def note(event, arguments):
    if event in ("socket.connect", "socket.sendto", "socket.sendmsg"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a path, or that of a socket that is connected
    elif event in ("socket.getaddrinfo", "socket.gethostbyname", "socket.gethostbyaddr"):
        host = arguments[0]
    else:
        return
    if not is_here(host):
        where = " < ".join(f"{frame.name} in {frame.filename}" for frame in traceback.extract_stack()[-8:-1][::-1])
        with open(LOG, "a", encoding="utf-8") as stream:
            stream.write(f"{event} {host}: {where}\n")


if LOG:
    sys.addaudithook(note)
