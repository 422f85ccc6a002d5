"""The API's endpoints as tools of assistants (Model Context Protocol), where the package `mcp` is installed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from gradio.routes import App
from gradio_client.utils import is_file_obj_with_meta, traverse


def has_tools() -> bool:
    """Whether they can be offered."""
    return find_spec("mcp") is not None


@asynccontextmanager
async def restricted_tools(app: App) -> AsyncIterator[None]:
    """For as long as an app is served, its tools take no files and answer in JSON.

    Gradio's own would read any file of this machine that an argument describes, into the folder of what was uploaded;
    and they answer as Python writes values, or with pictures, where a value names a file of one.
    """
    server = app.get_blocks().mcp_server_obj
    if server is not None:
        server.convert_strings_to_filedata = _without_files  # type: ignore[method-assign]
        server.postprocess_output_data = _contents  # type: ignore[method-assign]
    yield


def _without_files(arguments: Any, positions: Any) -> Any:
    """The arguments of a tool; raises ValueError, which becomes its answer, where one describes a file."""
    traverse(arguments, _refuse, is_file_obj_with_meta)
    return arguments


def _refuse(file: Any) -> None:
    raise ValueError("No tool here takes a file: give texts, numbers and ids.")


def _contents(values: Any, root: str) -> list[Any]:
    """What a tool answers, from what its endpoint does."""
    from mcp.types import TextContent

    return [TextContent(type="text", text=json.dumps(value, ensure_ascii=False)) for value in values]
