"""`python app.py`: reads the command line and serves the page."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from dits.common.errors import DitsError
from ui.runtime.shutdown import leave, listen_for_shutdown


def main() -> None:
    """Reads the command line and serves, until a signal ends that; exits with 0 then, or 2 after one sentence."""
    arguments = vars(_parser().parse_args())
    listen_for_shutdown()
    try:
        leave(_serve(arguments))
    except KeyboardInterrupt:  # before the page was there
        leave(0)


def _serve(arguments: dict[str, Any]) -> int:
    try:
        from ui.server.serving import Settings, launch  # which takes seconds

        launch(Settings(**arguments))
    except (DitsError, OSError) as error:
        print(f"app.py: {error}", file=sys.stderr)
        return 2
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="app.py", description="Serves the page.")
    parser.add_argument(
        "--corpus", default=os.environ.get("DITS_CORPUS", "demo"), help="demo, a corpus folder, or an index of videos"
    )
    parser.add_argument(
        "--encoder",
        default=os.environ.get("DITS_ENCODER", "bundled"),
        help="bundled, an OpenCLIP model such as ViT-B-32/openai, NAME/FILE.safetensors, or local-dir:FOLDER",
    )
    parser.add_argument("--weights", type=Path, help="folder with xpool.safetensors and dits.safetensors")
    parser.add_argument("--index", metavar="DIR", help="where your own videos are indexed (default: your data folder)")
    parser.add_argument(
        "--hosted",
        action=argparse.BooleanOptionalAction,
        default="SPACE_ID" in os.environ,
        help="visitors upload videos, each sees only their own, and nobody names folders (default: on a Space)",
    )
    parser.add_argument(
        "--host",
        help="address to serve on (default: this machine only); whoever reaches it can name folders, unless --hosted",
    )
    parser.add_argument(
        "--name",
        dest="names",
        action="append",
        default=[],
        help="a further name that browsers ask for it under, such as that of a server before it; repeatable",
    )
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--no-warm", dest="warm", action="store_false", help="analyse nothing before somebody opens a tab for it"
    )
    return parser
