import csv
import errno
import json
import os
import stat
import subprocess
import sys

import pytest

from dits.common.errors import StorageError
from dits.common.files import (
    atomic_path,
    cache_root,
    make_folder,
    sha256_of,
    sha256_of_json,
    storage_errors,
    write_csv,
    write_json,
)


def test_writes_whole_files_and_replaces_them(tmp_path):
    target = tmp_path / "new" / "x.json"
    write_json(target, {"a": 1})
    write_json(target, {"a": 2})
    assert json.loads(target.read_text()) == {"a": 2}
    assert [path.name for path in target.parent.iterdir()] == ["x.json"]
    assert stat.S_IMODE(target.stat().st_mode) == 0o644


def test_a_failure_leaves_the_old_file_and_nothing_else(tmp_path):
    target = tmp_path / "x.txt"
    target.write_text("old")

    def fail_halfway():
        with atomic_path(target) as temporary:
            temporary.write_text("half of the new")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert target.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir()] == ["x.txt"]


@pytest.mark.parametrize(
    ("code", "says"),
    [
        (errno.EACCES, "No permission to write in"),
        (errno.EROFS, "No permission to write in"),
        (errno.ENOSPC, "No space left in"),
        (errno.ENOTDIR, "is not a folder"),
        (errno.EIO, "Cannot write in .*: input/output error"),
    ],
)
def test_write_errors_of_the_system_are_one_sentence(tmp_path, code, says):
    with pytest.raises(StorageError, match=says), storage_errors(tmp_path):
        raise OSError(code, os.strerror(code))


def test_a_full_disk_is_one_sentence_for_safetensors_too(tmp_path):
    """A limit on file sizes simulates a full disk."""
    program = (
        "import resource, signal, sys, torch\n"
        "from pathlib import Path\n"
        "from safetensors.torch import save_file\n"
        "from dits.common.files import atomic_path\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))\n"
        "try:\n"
        "    with atomic_path(Path(sys.argv[1]) / 'x.safetensors') as path:\n"
        "        save_file({'x': torch.zeros(10_000)}, path)\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("StorageError Cannot write in")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_without_permission_is_refused(tmp_path):
    """As another user, since root may write anywhere."""
    program = (
        "import os, sys\n"
        "from pathlib import Path\n"
        "from dits.common.files import make_folder\n"
        "if os.geteuid() == 0: os.setuid(65534)\n"
        "try: make_folder(Path(sys.argv[1]) / 'cache')\n"
        "except Exception as error: print(type(error).__name__, error)\n"
    )
    tmp_path.chmod(0o555)
    done = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("StorageError No permission to write in")
    assert "DITS_CACHE" in done.stdout


def test_makes_folders_and_accepts_existing_ones(tmp_path):
    assert make_folder(tmp_path / "a" / "b").is_dir()
    assert make_folder(tmp_path / "a" / "b").is_dir()


def test_the_cache_folder_can_be_chosen(tmp_path, monkeypatch):
    monkeypatch.setenv("DITS_CACHE", str(tmp_path / "here"))
    assert cache_root() == tmp_path / "here"
    monkeypatch.delenv("DITS_CACHE")
    assert cache_root().name == "dits"


def test_checksums(tmp_path):
    (tmp_path / "x").write_bytes(b"abc")
    assert sha256_of(tmp_path / "x") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert sha256_of_json({"a": 1, "b": [2]}) == sha256_of_json({"b": [2], "a": 1})


def test_csv_keeps_hostile_text_apart(tmp_path):
    rows = [["a,b", 'say "x"', "two\r\nlines"], ["", " spaces ", "'; DROP"], ["=1+1", "\ttab", "🎬\u2028"]]
    write_csv(tmp_path / "x.csv", ("one", "two", "three"), rows)
    with (tmp_path / "x.csv").open(newline="", encoding="utf-8") as stream:
        assert list(csv.reader(stream)) == [["one", "two", "three"], *rows]


def test_csv_escapes_what_utf8_cannot_hold(tmp_path):
    write_csv(tmp_path / "x.csv", ("caption",), [["half a pair \ud83c"]])
    assert (tmp_path / "x.csv").read_text(encoding="utf-8").splitlines() == ["caption", "half a pair \\ud83c"]


def test_csv_is_written_atomically(tmp_path):
    write_csv(tmp_path / "x.csv", ("n",), [[1]])

    def rows():
        yield [2]
        raise ValueError

    with pytest.raises(ValueError):  # noqa: PT011 - its own
        write_csv(tmp_path / "x.csv", ("n",), rows())
    assert (tmp_path / "x.csv").read_text().split() == ["n", "1"]
    assert [path.name for path in tmp_path.iterdir()] == ["x.csv"]
