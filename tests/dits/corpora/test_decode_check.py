"""Undecodable videos among files that crash or hang the worker process."""

import os
from dataclasses import replace

from dits.corpora.decode_check import undecodable
from dits.corpora.names import open_corpus
from tests.fixtures.hostile_items import DeadlyPath, EndlessPath


def test_hostile_files_are_reported_and_the_others_are_checked(tiny_corpus, tmp_path):
    clips = list(open_corpus(str(tiny_corpus)).clips[:7])
    os.mkfifo(tmp_path / "pipe.mp4")  # it has no writer: opening it would never end
    for number, path in {1: EndlessPath(), 3: tmp_path / "pipe.mp4", 6: DeadlyPath()}.items():
        clips[number] = replace(clips[number], path=path)
    tried = []
    reasons = undecodable(clips, lambda done, total: tried.append((done, total)), workers=2, seconds=8)
    assert list(reasons) == [clips[number].id for number in (1, 3, 6)]
    endless, pipe, deadly = reasons.values()
    assert endless.startswith("it took longer than 8 seconds;")
    assert "is not a regular file" in pipe
    assert deadly.startswith("it ends the process that decodes it;")
    assert tried == [(done, 7) for done in range(1, 8)]
