"""The endpoints of the API as tools of assistants (the Model Context Protocol), where `mcp` is installed."""

import json
from importlib.util import find_spec
from typing import Any

import gradio as gr


def has_tools() -> bool:
    """Whether they can be offered."""
    return find_spec("mcp") is not None


def answer_as_json(app: gr.Blocks) -> None:
    """Tools of a running app answer in JSON, and in nothing else.

    Gradio's own answers are values as Python writes them, and pictures, where a value names a file of one.
    """
    server = app.mcp_server_obj
    if server is not None:
        server.postprocess_output_data = _contents  # type: ignore[method-assign]


def _contents(values: Any, root: str) -> list[Any]:
    """What a tool answers, from what its endpoint does."""
    from mcp.types import TextContent

    return [TextContent(type="text", text=json.dumps(value, ensure_ascii=False)) for value in values]
