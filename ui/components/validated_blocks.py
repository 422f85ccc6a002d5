"""What events and the API are told is looked at before any component or function is: anybody can send anything."""

import logging
import os
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from dits.common.errors import InputError, require

MAX_DEPTH = 32
"""So deep may what is sent be nested."""

_log = logging.getLogger(__name__)


class ValidatedBlocks(gr.Blocks):
    """Blocks that refuse, in one sentence, what they cannot use, and tell nobody but the log what failed inside."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **named: Any) -> list[Any]:
        """What the function is given of what was sent; raises gr.Error where that cannot be used."""
        try:
            sent, needed = len(inputs), len(block_fn.inputs)
            require(sent >= needed, f"{sent} values were sent where {needed} are needed.")
            for block, value in zip(block_fn.inputs, inputs, strict=False):
                validate_sent(value, Path(get_upload_folder()) if isinstance(block, gr.File) else None)
            return await super().preprocess_data(block_fn, inputs, *more, **named)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:  # a component raises what Python does at a value of another type
            _log.debug("What was sent cannot be used", exc_info=error)
            raise gr.Error(
                "What was sent cannot be used here: reload the page, and try again.", print_exception=False
            ) from error

    async def process_api(self, *given: Any, **named: Any) -> dict[str, Any]:
        """What is answered; raises gr.Error, which does not say where on the machine something failed."""
        try:
            return await super().process_api(*given, **named)
        except gr.Error:
            raise
        except Exception as error:
            _log.error("The app failed at this", exc_info=error)
            raise gr.Error(
                f"Something failed here ({type(error).__name__}): try again.", print_exception=False
            ) from error


def validate_sent(value: Any, folder: Path | None) -> None:
    """Nothing, where a value that was sent can be used.

    Args:
        folder: where the value may name files, which must lie there; None: it may name none.

    Raises:
        InputError: it is nested too deeply, holds half a character, or names a file that was not uploaded here.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        for named in (part for part in level if isinstance(part, dict) and "path" in part):
            require(
                folder is not None and _is_upload(named["path"], folder),
                "Only files that were uploaded here can be named: upload the file.",
            )
        require(all(_is_whole(part) for part in level if isinstance(part, str)), "A text holds half a character.")
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in ((*part, *part.values()) if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise InputError("What was sent is nested too deeply.")


def _is_upload(path: Any, folder: Path) -> bool:
    """Whether a path is that of a regular file in a folder, without links that lead out of it."""
    try:
        return isinstance(path, str) and os.path.isfile(path) and Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _is_whole(text: str) -> bool:
    """Whether a text has no half of a surrogate pair, which no answer could repeat."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False
