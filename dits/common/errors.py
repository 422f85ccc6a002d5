"""Every error a user can cause or meet, each with one sentence that says what is wrong, where, and what to do."""


class DitsError(Exception):
    """Base of all expected failures. The command line prints the message and exits 2; the app shows it."""


class InputError(DitsError):
    """A value, a query or a file that the user gave cannot be used."""


def require(condition: bool, message: str) -> None:
    """Raises InputError with the message unless the condition holds."""
    if not condition:
        raise InputError(message)


class VideoError(DitsError):
    """A video file cannot be decoded. The message names the file."""


class CorpusError(DitsError):
    """A corpus, its captions or its embeddings are missing, damaged or inconsistent."""


class CheckpointError(DitsError):
    """Weights are missing, damaged, or made for another encoder, method or dimension."""


class EncoderError(DitsError):
    """An encoder cannot be found, downloaded or loaded."""


class PairsError(DitsError):
    """A source of training pairs, a picture or a shard is missing, damaged, or of another release."""


class StorageError(DitsError):
    """A folder cannot be written: no permission, or no space left."""


class ClusterError(DitsError):
    """Machines of a Ray cluster cannot be reached, do not answer, or lack what they need."""


class IndexStoreError(DitsError):
    """An index of videos is missing, damaged, or made by another version or for another encoder."""


class MemoryFullError(DitsError):
    """A GPU has no memory left for what is to be computed."""
