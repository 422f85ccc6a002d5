"""Shows expected errors as messages on the page."""

import html
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from dits.common.errors import DitsError
from dits.common.memory import memory_errors


def show_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """Wrap a handler so that a DitsError becomes a message on the page, with HTML escaped."""

    @wraps(handler)  # Gradio reads the signature
    def wrapper(*args: Any) -> Any:
        try:
            with memory_errors():
                return handler(*args)
        except DitsError as error:
            text = str(error).encode("utf-8", "replace").decode()  # a lone surrogate in the query cannot be sent
            raise gr.Error(html.escape(text, quote=False), print_exception=False) from error

    return wrapper
