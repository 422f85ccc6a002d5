"""The API's endpoints as tools of assistants (Model Context Protocol), if the package `mcp` is installed."""

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib.util import find_spec
from typing import Any

from gradio.routes import App
from gradio_client.utils import is_file_obj_with_meta, traverse


def has_tools() -> bool:
    """Whether the package `mcp` is installed."""
    return find_spec("mcp") is not None


@asynccontextmanager
async def restricted_tools(app: App) -> AsyncIterator[None]:
    """Lifespan of the app that makes its tools reject files and answer in JSON.

    Gradio's default tools copy any file of this machine that an argument describes to the folder of uploads. They
    answer with the `str` of Python values, or with a picture if a value names an image file.
    """
    server = app.get_blocks().mcp_server_obj
    if server is not None:
        server.convert_strings_to_filedata = _reject_files  # type: ignore[method-assign]
        server.postprocess_output_data = _json_contents  # type: ignore[method-assign]
    yield


def _reject_files(arguments: Any, positions: Any) -> Any:
    """Return the arguments of a tool; raises ValueError, which becomes its answer, if one describes a file."""
    traverse(arguments, _reject, is_file_obj_with_meta)
    return arguments


def _reject(file: Any) -> None:
    raise ValueError("No tool here takes a file: give texts, numbers and ids.")


def _json_contents(values: Any, root: str) -> list[Any]:
    """The answer of a tool: the endpoint's values as JSON."""
    from mcp.types import TextContent

    return [TextContent(type="text", text=json.dumps(value, ensure_ascii=False)) for value in values]
