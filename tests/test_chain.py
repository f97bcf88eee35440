"""A file whose pieces do not follow one another is noticed, and what it lost is told; a whole one never is."""

import numpy as np
import pytest
from media_files import read_number, write_numbered

from tubelet.media.health import examine
from tubelet.media.reader import av, index
from tubelet.media.structure import broken_at

FILES = {
    "h264.mkv": {},
    "jpeg.mkv": {"codec": "mjpeg", "codec_options": {}},
    "vp8.webm": {"codec": "libvpx", "codec_options": {"deadline": "realtime", "cpu-used": "8"}},
    "jpeg.avi": {"codec": "mjpeg", "codec_options": {}},
    "jpeg-sound.avi": {"codec": "mjpeg", "codec_options": {}, "sound_hz": 440.0},
    "live.mkv": {"container_options": {"live": "1"}},
}
EVEN = ("jpeg.mkv", "jpeg.avi", "jpeg-sound.avi")  # each packet is a picture, and times tell them apart
COUNT = 40


@pytest.fixture(scope="module", params=FILES)
def whole(request, tmp_path_factory):
    folder = tmp_path_factory.mktemp("chain")
    return write_numbered(folder / request.param, COUNT, **FILES[request.param])


def packets(path):
    with av.open(str(path)) as container:
        return [(packet.pos, packet.size) for packet in container.demux(video=0) if packet.size]


def test_a_whole_file_holds_whatever_follows_it(whole, tmp_path):
    assert broken_at(str(whole)) is None
    more = tmp_path / whole.name
    if whole.suffix == ".avi" or whole.name == "jpeg.mkv":  # they say where they end
        more.write_bytes(whole.read_bytes() + b"what an editor left \0\0\0\0" * 9)
        assert broken_at(str(more)) is None


def test_a_file_cut_short_is_not_broken(whole, tmp_path):
    data, cut = whole.read_bytes(), tmp_path / whole.name
    for size in range(20, len(data), max(1, len(data) // 50)):
        cut.write_bytes(data[:size])
        assert broken_at(str(cut)) is None, size


def test_zeroes_over_the_head_of_a_packet_are_noticed_where_they_are(whole, tmp_path):
    data, damaged = whole.read_bytes(), tmp_path / whole.name
    for place, _ in packets(whole)[3::9]:
        spoiled = bytearray(data)
        spoiled[max(0, place - 24) : place + 24] = bytes(48)
        damaged.write_bytes(spoiled)
        at = broken_at(str(damaged))
        assert at is not None
        assert at < place + 24
        assert not examine(damaged).ok


@pytest.mark.parametrize("name", EVEN)
@pytest.mark.parametrize(("first", "last"), [(5, 5), (7, 12), (20, 38), (30, 39)])
def test_what_is_lost_is_what_no_decoder_gives(tmp_path, name, first, last):
    path = write_numbered(tmp_path / name, COUNT, **FILES[name])
    data, places = bytearray(path.read_bytes()), packets(path)
    start, end = places[first][0] - 8, sum(places[last])
    data[start:end] = bytes(end - start)
    path.write_bytes(data)
    with av.open(str(path)) as container:
        given = {read_number(frame.to_ndarray(format="rgb24")) for frame in container.decode(video=0)}
    lost = sorted(set(range(COUNT)) - given)
    assert set(range(first, last + 1)) <= set(lost)  # a demuxer may need a few more to find its way
    found = examine(path)
    assert (found.ok, found.code, found.frames, found.bad_frames) == (False, "damaged", len(given), len(lost))
    if path.suffix == ".mkv":
        np.testing.assert_allclose(found.bad_spans, [(lost[0] / 25, (lost[-1] + 1) / 25)], atol=0.0021)
    else:  # AVI stores no times: what follows the hole moves up
        np.testing.assert_allclose(found.bad_spans, [(len(given) / 25, COUNT / 25)], atol=0.0021)


def test_other_containers_are_left_alone(tmp_path):
    path = write_numbered(tmp_path / "a.mp4", 5)
    assert broken_at(str(path)) is None
    assert index(path).times.size == 5
