"""The command `python app.py`: reads the command line and serves the page."""

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from dits.common.errors import DitsError
from ui.runtime.shutdown import exit_process, listen_for_shutdown


def main() -> None:
    """Read the command line and serve the page until a signal; exit with 0, or with 2 after an error message."""
    arguments = vars(_parser().parse_args())
    listen_for_shutdown()
    try:
        exit_process(_serve(arguments))
    except KeyboardInterrupt:  # before the server has started
        exit_process(0)


def _serve(arguments: dict[str, Any]) -> int:
    try:
        from ui.server.serving import Settings, launch  # this import takes seconds

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
    parser.add_argument("--index", metavar="DIR", help="index of your own videos (default: in your data folder)")
    parser.add_argument(
        "--hosted",
        action=argparse.BooleanOptionalAction,
        default="SPACE_ID" in os.environ,
        help="visitors upload videos and see only their own; they cannot name folders (default: on a Space)",
    )
    parser.add_argument(
        "--host",
        help="address to serve on (default: this machine only); without --hosted, every visitor can name folders",
    )
    parser.add_argument(
        "--name",
        dest="names",
        action="append",
        default=[],
        help="another host name of the page, such as that of a reverse proxy; repeatable",
    )
    parser.add_argument("--port", type=int, help="port (default: the first free one from 7860)")
    parser.add_argument(
        "--no-warm", dest="warm", action="store_false", help="compute the analysis of a tab only when the tab is opened"
    )
    return parser
