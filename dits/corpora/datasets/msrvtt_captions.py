"""All sentences that MSR-VTT's JSON has for given videos, also of the test split, which has one from its CSV."""

from collections.abc import Collection
from pathlib import Path

from dits.common.errors import CorpusError
from dits.corpora.datasets.annotations import AnnotationFolders, Captions, captions_by_id, clean, read_json
from dits.corpora.datasets.registry import DATASETS


def all_captions(corpus: str, ids: Collection[str]) -> Captions:
    """Every sentence known for the videos, by id, if the corpus is an MSR-VTT; empty for other corpora.

    Videos without sentences and empty sentences are left out.

    Args:
        corpus: the name of the corpus on the command line, such as "msrvtt-7k:FOLDER".
        ids: ids of videos of the corpus.

    Raises:
        CorpusError: MSRVTT_data.json is missing or cannot be used.
    """
    name, _, folder = corpus.partition(":")
    if name not in DATASETS or not name.startswith("msrvtt"):
        return {}
    root = Path(folder).expanduser()
    path = AnnotationFolders((root, *(root / inner for inner in DATASETS[name].folders))).find("MSRVTT_data.json")
    sentences = read_json(path, dict).get("sentences")
    if not isinstance(sentences, list):
        raise CorpusError(f"{path} has no list 'sentences': it is not the file that MSR-VTT's loaders read.")
    known = captions_by_id(sentences, "video_id", "caption", f"{path}, sentence")
    cleaned = {video: [text for text in map(clean, known.get(video, [])) if text] for video in ids}
    return {video: texts for video, texts in cleaned.items() if texts}
