"""All expected errors. Each message says what is wrong, where, and what to do."""


class DitsError(Exception):
    """Base class of all expected errors. The command line prints the message and exits with 2; the app shows it."""


class InputError(DitsError):
    """A value, a query or a file from the user is invalid."""


def require(condition: bool, message: str) -> None:
    """Raise InputError with the message if the condition is false."""
    if not condition:
        raise InputError(message)


class VideoError(DitsError):
    """A video file cannot be decoded. The message names the file."""


class CorpusError(DitsError):
    """A corpus, its captions or its embeddings are missing, damaged or inconsistent."""


class CheckpointError(DitsError):
    """Weights are missing, damaged, or belong to another encoder, method or dimension."""


class EncoderError(DitsError):
    """An encoder cannot be found, downloaded or loaded."""


class PairsError(DitsError):
    """A source of training pairs, an image or a shard is missing, damaged, or from another release."""


class StorageError(DitsError):
    """A folder is not writable: no permission, or no space left."""


class ClusterError(DitsError):
    """Machines of a Ray cluster are unreachable, do not respond, or lack a requirement."""


class IndexStoreError(DitsError):
    """A video index is missing, damaged, or was built by another version or for another encoder."""


class MemoryFullError(DitsError):
    """A GPU has too little free memory for a computation."""
