"""An index in a bucket behaves as one in a folder does; the bucket is moto's, reached over HTTP."""

import logging

import boto3
import pytest
from moto.server import ThreadedMotoServer

from dits.common.errors import IndexStoreError
from dits.index.adding.config import AddConfig
from dits.index.adding.run import add_videos, remove_videos, update_index
from dits.index.store import VideoIndex
from tests.helpers.videos import stamp, write_video

WHOLE = AddConfig(segment="whole", workers=1)


@pytest.fixture(scope="module")
def server():
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    running = ThreadedMotoServer(port=0)
    running.start()
    host, port = running.get_host_and_port()
    yield f"http://{host}:{port}"
    running.stop()


@pytest.fixture
def bucket(server, monkeypatch):
    """The URL of a bucket."""
    values = {
        "AWS_ACCESS_KEY_ID": "key", "AWS_SECRET_ACCESS_KEY": "secret", "AWS_REGION": "us-east-1",
        "AWS_ENDPOINT": server, "AWS_ALLOW_HTTP": "true",
    }  # fmt: skip
    for name, value in values.items():
        monkeypatch.setenv(name, value)
    client = boto3.client("s3", endpoint_url=server, region_name="us-east-1")
    client.create_bucket(Bucket="bucket")
    yield "s3://bucket"
    for item in client.list_objects_v2(Bucket="bucket").get("Contents", []):
        client.delete_object(Bucket="bucket", Key=item["Key"])
    client.delete_bucket(Bucket="bucket")


def test_a_bucket_is_as_good_as_a_folder(bucket, tmp_path, tiny_encoder):
    folder = tmp_path / "videos"
    folder.mkdir()
    for number in range(3):
        images = [stamp(number * 30 + n, 64, 48) for n in range(10)]
        write_video(folder / f"{number}.mp4", images, size=(64, 48))
    (folder / "broken.mp4").write_bytes(b"no video")
    places = [f"{bucket}/index", str(tmp_path / "index")]
    indexes = [VideoIndex.create(place, tiny_encoder) for place in places]

    def both(act):
        """What comes of it in both, which is the same, as is what they hold then."""
        in_bucket, in_folder = (act(index) for index in indexes)
        assert in_bucket == in_folder
        held = [
            index.rows(["id", "path", "status", "reason", "frames", "times"], None).to_pylist() for index in indexes
        ]
        assert held[0] == held[1]
        assert indexes[0].counts() == indexes[1].counts()
        assert indexes[0].sources() == indexes[1].sources()
        return in_bucket

    report = both(lambda index: add_videos(index, tiny_encoder, [folder], WHOLE))
    assert (report.added, report.failed) == (3, 1)
    assert both(lambda index: add_videos(index, tiny_encoder, [folder], WHOLE)).unchanged == 4
    (folder / "0.mp4").unlink()
    write_video(folder / "1.mp4", [stamp(900 + n, 64, 48) for n in range(10)], size=(64, 48))
    report = both(lambda index: update_index(index, tiny_encoder, WHOLE))
    assert (report.added, report.missing, report.unchanged) == (1, 1, 2)
    assert both(lambda index: index.compact(always=True)) is None
    assert both(lambda index: remove_videos(index, [folder / "2.mp4", folder / "broken.mp4"])) == 2
    indexes = [VideoIndex.open(place, tiny_encoder) for place in places]
    assert both(VideoIndex.counts) == {"videos": 1, "segments": 1, "failed": 0, "duplicate": 0, "missing": 1}


def test_a_bucket_that_is_not_there_is_said(bucket, tiny_encoder):
    for act in (VideoIndex.create, VideoIndex.open):
        with pytest.raises(IndexStoreError, match=r"s3://nowhere/index .*\.$") as caught:
            act("s3://nowhere/index", tiny_encoder)
        assert "\n" not in str(caught.value)


def test_a_bucket_without_an_index_is_said(bucket, tiny_encoder):
    with pytest.raises(IndexStoreError, match="add videos with `python -m dits index add`"):
        VideoIndex.open(f"{bucket}/nothing", tiny_encoder)
