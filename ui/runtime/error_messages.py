"""Expected failures as messages on the page."""

import html
from collections.abc import Callable
from functools import wraps
from typing import Any

import gradio as gr

from dits.common.errors import DitsError
from dits.common.memory import memory_errors


def shown_errors(handler: Callable[..., Any]) -> Callable[..., Any]:
    """The handler, whose expected failures become messages on the page, their text escaped."""

    @wraps(handler)  # Gradio reads the signature
    def shown(*args: Any) -> Any:
        try:
            with memory_errors():
                return handler(*args)
        except DitsError as error:
            raise gr.Error(_sentence(error), print_exception=False) from error

    return shown


def _sentence(error: DitsError) -> str:
    """What went wrong, as text that can be sent: halves of characters, which somebody may have typed, cannot."""
    return html.escape(str(error).encode("utf-8", "replace").decode(), quote=False)
