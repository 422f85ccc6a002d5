"""Request validation for page events and the API, before any component or function sees the values."""

import logging
import os
from pathlib import Path
from typing import Any

import gradio as gr
from gradio.utils import get_upload_folder

from dits.common.errors import InputError, require

MAX_DEPTH = 32
"""The maximum nesting depth of a value."""

_log = logging.getLogger(__name__)


class ValidatedBlocks(gr.Blocks):
    """Blocks that refuse invalid requests with one sentence. Details of internal errors go to the log only."""

    async def preprocess_data(self, block_fn: Any, inputs: list[Any], *more: Any, **named: Any) -> list[Any]:
        """Validate the inputs of a function, then preprocess them; raise gr.Error if they are invalid."""
        try:
            count, needed = len(inputs), len(block_fn.inputs)
            require(count >= needed, f"{count} values were sent, but {needed} are needed.")
            for block, value in zip(block_fn.inputs, inputs, strict=False):
                validate_value(value, Path(get_upload_folder()) if isinstance(block, gr.File) else None)
            return await super().preprocess_data(block_fn, inputs, *more, **named)
        except InputError as error:
            raise gr.Error(str(error), print_exception=False) from error
        except Exception as error:  # components fail on values of other types with various exceptions
            _log.debug("A request is invalid", exc_info=error)
            raise gr.Error("The request is invalid. Reload the page and try again.", print_exception=False) from error

    async def process_api(self, *arguments: Any, **named: Any) -> dict[str, Any]:
        """Answer a request; raise gr.Error, which shows no details of the machine, for any failure."""
        try:
            return await super().process_api(*arguments, **named)
        except gr.Error:
            raise
        except Exception as error:
            _log.error("A request failed", exc_info=error)
            raise gr.Error(f"Something failed ({type(error).__name__}). Try again.", print_exception=False) from error


def validate_value(value: Any, folder: Path | None) -> None:
    """Validate a value of a request.

    Args:
        value: the value, of any type.
        folder: the folder of the files that the value may name; None: it may not name files.

    Raises:
        InputError: the value is nested too deeply, contains an unpaired surrogate, or names a file outside the folder.
    """
    level = [value]
    for _ in range(MAX_DEPTH):
        for named in (part for part in level if isinstance(part, dict) and "path" in part):
            require(
                folder is not None and _is_upload(named["path"], folder),
                "Only files that were uploaded here can be named: upload the file.",
            )
        require(
            all(_is_whole(part) for part in level if isinstance(part, str)),
            "A text contains half a character (an unpaired surrogate).",
        )
        level = [
            inner
            for part in level
            if isinstance(part, dict | list)
            for inner in ((*part, *part.values()) if isinstance(part, dict) else part)
        ]
        if not level:
            return
    raise InputError("The request is nested too deeply.")


def _is_upload(path: Any, folder: Path) -> bool:
    """Whether a path is a regular file in a folder; symbolic links out of the folder do not count."""
    try:
        return isinstance(path, str) and os.path.isfile(path) and Path(path).resolve().is_relative_to(folder.resolve())
    except (OSError, ValueError, RuntimeError):
        return False


def _is_whole(text: str) -> bool:
    """Whether a text has no unpaired surrogate, which cannot be encoded in an answer."""
    try:
        text.encode()
        return True
    except UnicodeEncodeError:
        return False
