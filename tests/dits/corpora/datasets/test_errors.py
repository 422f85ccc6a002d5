"""Unusable annotation files: each error is one sentence with the file and the problem."""

import json
import pickle
import re
import shutil

import numpy as np
import pytest

from dits.common.errors import CorpusError, DitsError
from dits.corpora.datasets import load_dataset, load_table
from dits.corpora.datasets.annotations import MissingAnnotationsError
from dits.corpora.names import open_corpus
from tests.fixtures.make_datasets import VATEX, make_datasets


@pytest.fixture(scope="module")
def datasets(demo, tmp_path_factory):
    return make_datasets(tmp_path_factory.mktemp("datasets"), demo)


@pytest.fixture
def spoil(datasets, tmp_path):
    """Copies a dataset and replaces the content of one of its files."""

    def copy_with(dataset, file, content):
        root = shutil.copytree(datasets[dataset], tmp_path / dataset, symlinks=True)
        path = root / file
        if callable(content):
            content = content(path.read_bytes() if path.suffix == ".npy" else path.read_text(encoding="utf-8"))
        path.write_bytes(content if isinstance(content, bytes) else content.encode())
        return root

    return copy_with


def edited(change):
    """A change to the value of a JSON file."""

    def edit(text):
        value = json.loads(text)
        change(value)
        return json.dumps(value)

    return edit


def replaced(old, new):
    """A change to a text, which must contain `old`."""

    def edit(text):
        assert old in text
        return text.replace(old, new, 1)

    return edit


def npy_header(shape):
    """An .npy file whose header declares more than the file contains."""
    header = f"{{'descr': '<U25', 'fortran_order': False, 'shape': {shape}, }}".ljust(117) + "\n"
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header.encode()


def names_array(change):
    """VATEX's names in a changed NumPy array."""

    def edit(data):
        from io import BytesIO

        stream = BytesIO()
        np.save(stream, change(np.array(VATEX["trn"])))
        return stream.getvalue()

    return edit


LSMDC_TEST_FILE = "LSMDC16_challenge_1000_publictect.csv"


@pytest.mark.parametrize(
    ("dataset", "file", "content", "says"),
    [
        # columns, fields and keys
        ("msrvtt", "MSRVTT_train.9k.csv", "id\nvideo0\n", "MSRVTT_train.9k.csv has no column 'video_id'"),
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", "video_id,caption\na,b\n", "no column 'sentence'"),
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", "video_id,sentence\na,one, two\n", "row 2: more cells than columns"),
        ("msrvtt", "MSRVTT_train.9k.csv", "video_id,x\n,1\n", "row 2: the column 'video_id' is empty"),
        ("msrvtt", "MSRVTT_train.9k.csv", "video_id\n", "has no rows"),
        ("msrvtt", "MSRVTT_data.json", edited(lambda v: v.pop("sentences")), "no list 'sentences'"),
        ("msrvtt", "MSRVTT_data.json", edited(lambda v: v["sentences"][2].pop("video_id")), "3 has no 'video_id'"),
        ("msrvtt", "MSRVTT_data.json", edited(lambda v: v["sentences"].insert(0, 7)), "sentence 1 has no 'video_id'"),
        ("charades", "Charades/Charades_v1_test.csv", "id,descriptions\na,b\n", "no column 'script'"),
        ("lsmdc", LSMDC_TEST_FILE, "a\tb\tc\n", "line 1: 3 fields where 6 are expected"),
        ("lsmdc", LSMDC_TEST_FILE, "clip,0,1,0,1,A sentence.\n", "line 1: 1 fields where 6"),
        ("didemo-json", "val_data.json", edited(lambda v: v[1].pop("description")), "item 2 has no 'description'"),
        ("didemo-csv", "didemo_val_label.csv", replaced("tensor([[31]])", "tensor([])"),
         "'tensor([])' is not a number"),
        ("didemo-csv", "didemo_val_label.csv", replaced("tensor([[31]])", "tensor([[0 31]])"), "is not a number"),
        ("didemo-csv", "didemo_val_label.csv", replaced("tensor([[31]])", "tensor([[-1]])"), "ends before it starts"),
        # encodings
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", lambda text: text.encode("utf-16"), "is not UTF-8 text: save it"),
        ("lsmdc", "LSMDC16_annos_training.csv", lambda text: text.encode("latin-1"), "is not UTF-8 text: save it"),
        ("didemo-json", "test_data.json", b"[\xff]", "is not UTF-8 text: save it as UTF-8"),
        ("vatex-lists", "train_list.txt", b"\xe9\n", "is not UTF-8 text: save it as UTF-8"),
        # JSON
        ("msrvtt", "MSRVTT_data.json", lambda text: text[:1000], "MSRVTT_data.json is not JSON (unterm"),
        ("msrvtt", "MSRVTT_data.json", "[" * 100_000, "is not JSON (it is nested too deeply)"),
        ("msrvtt", "MSRVTT_data.json", "9" * 10_000, "is not JSON (exceeds the limit"),
        ("msrvtt", "MSRVTT_data.json", "[]", "holds no JSON object"),
        ("didemo-json", "train_data.json", "{}", "holds no JSON list"),
        ("vatex", "ref_captions.json", '{"a": ["x"], "a": ["y"]}', "names 'a' twice"),
        # captions that are not text
        ("msrvtt", "MSRVTT_data.json", edited(lambda v: v["sentences"][0].update(caption=5)), "is not text but 5"),
        ("didemo-json", "val_data.json", edited(lambda v: v[0].update(description=None)), "is not text but null"),
        ("vatex", "ref_captions.json", edited(lambda v: v.update({VATEX["trn"][0]: ["a", 1.5]})),
         "is not text but 1.5"),
        ("vatex", "ref_captions.json", edited(lambda v: v.update({VATEX["trn"][0]: "a"})), "are not a list"),
        # ids that are not file names
        ("msrvtt", "MSRVTT_JSFUSION_test.csv", replaced("video8", "../video8"), "'../video8' is not a plain file name"),
        ("msrvtt", "MSRVTT_train.9k.csv", replaced("video3", "/etc/passwd"), "'/etc/passwd' is not a plain file name"),
        ("lsmdc", LSMDC_TEST_FILE, replaced("3001", "..\\3001"), "is not a plain file name without folders"),
        ("didemo-json", "test_data.json", edited(lambda v: v[0].update(video="..")), "'..' is not a plain file name"),
        ("vatex", "trn_names.npy", names_array(lambda names: np.append(names, "a/b")),
         "'a/b' is not a plain file name"),
        ("vatex", "trn_names.npy", names_array(lambda names: np.append(names, "a\nb")), r"'a\nb' is not a plain"),
        ("charades", "Charades/Charades_v1_test.csv", replaced("MNB5H", "x" * 300), "is not a plain file name"),
        # arrays
        ("vatex", "trn_names.npy", names_array(lambda names: names.astype(object)), "holds pickled objects"),
        ("vatex", "trn_names.npy", names_array(lambda names: np.arange(3)), "no list of texts but an array of int64"),
        ("vatex", "trn_names.npy", names_array(lambda names: names[None]), "with 2 dimensions"),
        ("vatex", "trn_names.npy", names_array(lambda names: np.array([b"\xff"])), "names are not UTF-8"),
        ("vatex", "trn_names.npy", names_array(lambda names: np.array(["\ud800"])), "is not a plain file name"),
        ("vatex", "trn_names.npy", names_array(lambda names: np.array([2**31 - 1], np.uint32).view("U1")), "not UTF-8"),
        ("vatex", "trn_names.npy", lambda data: data[:-8], "not a NumPy array, or is damaged"),
        ("vatex", "trn_names.npy", npy_header("(10**15,)"), "not a NumPy array, or is damaged"),
        ("vatex", "trn_names.npy", npy_header("(1000000000000000,)"), "not a NumPy array, or is damaged"),
        ("vatex", "trn_names.npy", pickle.dumps(["a"]), "not a NumPy array, or is damaged"),
        ("vatex", "trn_names.npy", b"", "not a NumPy array, or is damaged"),
    ],
)  # fmt: skip
def test_refuses_unusable_files(spoil, dataset, file, content, says):
    root = spoil(dataset, file, content)
    with pytest.raises(DitsError, match=re.escape(says)) as error:
        load_dataset(dataset.removesuffix("-lists"), root)
    assert "\n" not in str(error.value)


def test_the_advice_on_pickled_names_gives_readable_names(spoil, monkeypatch):
    root = spoil("vatex", "trn_names.npy", names_array(lambda names: names.astype(object)))
    with pytest.raises(CorpusError) as error:
        load_dataset("vatex", root)
    program = re.search(r'python -c "(.*)"$', str(error.value)).group(1)
    monkeypatch.chdir(root)
    exec(program)  # what a user would run
    assert load_dataset("vatex", root).corpus.split("train").ids == VATEX["trn"]


def test_nothing_is_unpickled(spoil, tmp_path):
    class Trap:
        def __reduce__(self):
            return open, (str(tmp_path / "sprung"), "w")

    root = spoil("vatex", "trn_names.npy", names_array(lambda names: np.array([Trap()], dtype=object)))
    with pytest.raises(CorpusError, match="pickled objects"):
        load_dataset("vatex", root)
    assert not (tmp_path / "sprung").exists()


@pytest.mark.parametrize(
    ("name", "dataset", "file", "who"),
    [
        ("msrvtt", "msrvtt", "MSRVTT_data.json", "CLIP4Clip"),
        ("msrvtt-7k", "msrvtt", "MSRVTT_train.7k.csv", "CLIP4Clip"),
        ("lsmdc", "lsmdc", "LSMDC16_annos_val.csv", "Max Planck"),
        ("lsmdc", "lsmdc", LSMDC_TEST_FILE, "Max Planck"),
        ("didemo", "didemo-json", "val_data.json", "LocalizingMoments"),
        ("didemo", "didemo-csv", "didemo_train_label.csv", "T-MASS"),
        ("vatex", "vatex", "val_names.npy", "hgr_v2t"),
        ("vatex", "vatex-lists", "test_list.txt", "hgr_v2t"),
        ("charades", "charades", "Charades/Charades_v1_train.csv", "Allen Institute"),
    ],
)
def test_a_missing_file_is_named_with_how_to_obtain_it(datasets, tmp_path, name, dataset, file, who):
    root = shutil.copytree(datasets[dataset], tmp_path / dataset, symlinks=True)
    (root / file).unlink()
    missing = file.rpartition("/")[2]
    with pytest.raises(MissingAnnotationsError, match=f"There is no {re.escape(missing)} in .*How to obtain.*{who}"):
        load_dataset(name, root)


def test_empty_captions_are_left_out_and_refused_where_strict(spoil):
    change = edited(lambda v: v.update({VATEX["trn"][0]: ["a caption", "", "  "]}))
    root = spoil("vatex", "ref_captions.json", change)
    (root / f"{VATEX['tst'][1]}.mp4").symlink_to(root / f"{VATEX['tst'][0]}.mp4")  # now no video is missing
    loaded = load_dataset("vatex", root)
    assert loaded.corpus.clips[0].captions == ("a caption",)
    assert "Left out: empty captions (2)." in loaded.notices
    with pytest.raises(CorpusError, match=r"not complete. Left out: empty captions .2"):
        load_dataset("vatex", root, strict=True)


def test_lone_surrogates_do_not_reach_the_encoder(spoil):
    change = edited(lambda v: v.update({VATEX["trn"][0]: ["half \ud83d a pair"]}))
    loaded = load_dataset("vatex", spoil("vatex", "ref_captions.json", change))
    assert loaded.corpus.clips[0].captions == ("half ? a pair",)


def test_no_video_at_all_is_an_error_that_names_the_first(datasets, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CorpusError, match=r"None of the 7 train videos of MSR-VTT.* the first as video1.mp4"):
        load_dataset("msrvtt", tmp_path / "empty", annotations=datasets["msrvtt"])
    with pytest.raises(CorpusError, match=r"There is no folder .*nowhere"):
        load_dataset("msrvtt", tmp_path / "nowhere", annotations=datasets["msrvtt"])
    with pytest.raises(CorpusError, match=r"There is no folder .*nowhere"):
        load_dataset("msrvtt", datasets["msrvtt"], annotations=tmp_path / "nowhere")


def test_unknown_names_are_refused(tmp_path):
    with pytest.raises(DitsError, match="no dataset 'imagenet': choose one of msrvtt, "):
        load_dataset("imagenet", tmp_path)
    for name in ("imagenet:/data", "C:/data", "/nowhere"):
        with pytest.raises(DitsError, match=r"There is no corpus '.*data list"):
            open_corpus(name)


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("path,caption\na.mp4,x\n", "no column 'video'"),
        ("video\na.mp4\n", "no column 'caption'"),
        ("video,caption\na.mp4,\n", "row 2: the column 'caption' is empty"),
        ("video,caption\na.mp4\n", "row 2: the column 'caption' is empty"),
        ("video,caption\na.mp4,a dog, running\n", "row 2: more cells than columns: quote texts that contain a comma"),
        ("video,caption\n", "holds no videos"),
        ("video,caption\n../a.mp4,x\n", "row 2: the path '../a.mp4' leads out of"),
        ("video,caption\nb/../../a.mp4,x\n", "leads out of"),
        ("video,caption\n/etc/passwd,x\n", "'/etc/passwd' leads out of"),
        ("video,caption\n..\\a.mp4,x\n", "leads out of"),
        ("video,caption\n.,x\n", "leads out of"),
        ("video,caption\na\x07.mp4,x\n", "is not a plain file name"),
        ("video,caption,split\na.mp4,x,dev\n", "row 2: there is no split 'dev': choose one of train"),
        ("video,caption,split\na.mp4,x,train\na.mp4,y,test\n", "row 3: the rows of a.mp4 disagree"),
        ("video,caption,split,group\na.mp4,x,train,g\nb.mp4,y,test,g\n", "row 3: the group g is in two splits"),
        ("video,caption,split,start\na.mp4,x,train,0\na.mp4,y,test,5\n", "the group a.mp4 is in two splits"),
        ("video,caption,start\na.mp4,x,soon\n", "row 2, column start: 'soon' is not a number of seconds"),
        ("video,caption,start\na.mp4,x,-1\n", "'-1' is not a number of seconds"),
        ("video,caption,end\na.mp4,x,nan\n", "'nan' is not a number of seconds"),
        ("video,caption,start,end\na.mp4,x,5,5\n", "row 2: the clip ends before it starts"),
        ("video,caption\nlost.mp4,x\n", "None of the 1 test videos of the table own.csv is in"),
        (b"video,caption\na.mp4,\xff\n", "is not UTF-8 text"),
        (b"video,caption\na.mp4,\x00\n", "row 2: the column 'caption' is empty"),
    ],
)
def test_tables_are_refused_with_the_row(tmp_path, text, says):
    path = tmp_path / "own.csv"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    (tmp_path / "a.mp4").touch()
    with pytest.raises(DitsError, match=re.escape(says)) as error:
        load_table(path)
    assert "\n" not in str(error.value)


def test_a_missing_table_is_named(tmp_path):
    with pytest.raises(DitsError, match=r"There is no file or folder .*lost.csv"):
        open_corpus(str(tmp_path / "lost.csv"))
