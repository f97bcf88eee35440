"""Files elsewhere: the same bits as from a disk, no byte fetched in vain or twice, and what servers do wrong."""

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from file_server import FileServer, serve
from media_files import write_numbered, write_sound
from naming import naming
from safetensors.torch import load_file
from small_sets import command, pictures, tiny_config, write_image, write_videos

from tubelet.check import check
from tubelet.data.duplicates import mark_content, same_contents
from tubelet.media import blocks, index_cache, remote
from tubelet.media.address import is_remote, join, name_from, suffix
from tubelet.media.bytes import open_bytes
from tubelet.media.errors import MediaError
from tubelet.media.reader import av, index, read_frames, read_sound
from tubelet.media.workers import Workers
from tubelet.train.train import train_fn

MOST = 1.2  # of the bytes that are needed


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.setattr(remote, "WAITS_SECONDS", (0.01, 0.01))
    monkeypatch.setattr(remote, "_silent", set())


@pytest.fixture
def server() -> Iterator[FileServer]:
    with serve() as server:
        yield server


FAST = {"movflags": "faststart"}
FRAGMENTS = {"movflags": "frag_keyframe+empty_moov"}
FILES: dict[str, dict[str, Any]] = {
    "a.mp4": {"sound_hz": 440},
    "fast.mp4": {"sound_hz": 440, "container_options": FAST},
    "fragments.mp4": {"sound_hz": 440, "container_options": FRAGMENTS},
    "edited.mov": {"codec_options": {"bf": "3", "g": "9"}},
    "turned.mp4": {"turn": (90, False)},
    "h265.mp4": {"codec": "libx265", "codec_options": {"preset": "ultrafast", "x265-params": "log-level=none"}},
    "vp9.webm": {"codec": "libvpx-vp9", "codec_options": {"deadline": "realtime", "cpu-used": "8", "g": "9"}},
    "mpeg4.mp4": {"codec": "mpeg4", "codec_options": {"g": "9"}},
    "mjpeg.mov": {"codec": "mjpeg", "codec_options": {}},
    "a.mkv": {"sound_hz": 440},
    "a.avi": {},
    "a.ts": {"sound_hz": 440},
}


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("place", ["http", "memory"])
def test_a_video_elsewhere_is_that_video(name: str, place: str, tmp_path: Path, server: FileServer) -> None:
    file = write_numbered(tmp_path / name, 80, **FILES[name])
    address = put(server, name, file.read_bytes()) if place == "http" else memory(file)
    theirs, mine = index(file), index(address)
    for field, value in vars(theirs).items():
        assert field == "path" or np.array_equal(getattr(mine, field), value), field
    times = np.array([0.0, 2.5, 1.2, 1.28])
    assert np.array_equal(read_frames(address, times), read_frames(file, times))
    with Workers() as workers:
        for quick in (True, False):
            ours, other = (workers.examine(str(one), quick=quick) for one in (address, file))
            assert {**vars(ours), "path": ""} == {**vars(other), "path": ""}
    assert_nothing_twice(server)


@pytest.mark.parametrize("name", ["a.png", "a.wav"])
def test_pictures_and_sound_elsewhere(name: str, tmp_path: Path, server: FileServer) -> None:
    file = tmp_path / name
    if name == "a.png":
        write_image(file, pictures(60, [1], frames=1)[0])
        address = put(server, name, file.read_bytes())
        assert np.array_equal(read_frames(address, np.zeros(1)), read_frames(file, np.zeros(1)))
    else:
        write_sound(file, np.sin(np.arange(80000) / 20), sample_rate=16000)
        address = put(server, name, file.read_bytes())
        assert np.array_equal(read_sound(address, sample_rate=8000), read_sound(file, sample_rate=8000))
    assert_nothing_twice(server)


def put(server: FileServer, name: str, content: bytes) -> str:
    server.files[f"/{name}"] = content
    return f"{server.url}/{name}"


def memory(file: Path) -> str:
    fsspec.filesystem("memory").pipe_file(f"/{file}", file.read_bytes())
    return f"memory://{file}"


def assert_nothing_twice(server: FileServer) -> None:
    for path in {path for path, _, _ in server.asked}:
        seen: set[int] = set()
        for _, first, count in (one for one in server.asked if one[0] == path):
            new = {*range(first, first + count)}
            assert not seen & new
            seen |= new


def write_noise(file: Path, *, faststart: bool, frames: int = 300) -> Path:
    """A video of many bytes: 25 frames a second, a key frame every twelve, with sound."""
    rng = np.random.default_rng(3)
    options = {"preset": "ultrafast", "crf": "16", "g": "12", "bf": "2", "threads": "1"}
    with av.open(str(file), "w", container_options=FAST if faststart else {}) as container:
        video: Any = container.add_stream("libx264", rate=25, options=options)
        video.height, video.width, video.pix_fmt = 144, 192, "yuv420p"
        sound: Any = container.add_stream("aac", rate=16000, layout="mono")
        for number in range(frames):
            picture = av.VideoFrame.from_ndarray(rng.integers(0, 256, (144, 192, 3), np.uint8))
            picture = picture.reformat(format="yuv420p")
            picture.pts = number
            container.mux(video.encode(picture))
            noise = av.AudioFrame.from_ndarray(rng.normal(0, 0.1, (1, 640)).astype("f4"), format="fltp", layout="mono")
            noise.sample_rate, noise.pts = 16000, 640 * number
            container.mux(sound.encode(noise))
        container.mux(video.encode())
        container.mux(sound.encode())
    return file


def count_needed(file: Path, times: np.ndarray) -> int:
    """Bytes of the table of contents, the first picture, and the packets that lead to these times, sound between them
    included."""
    with av.open(str(file)) as container:
        packets = [
            (packet.stream.type, float(packet.pts * packet.time_base), packet.is_keyframe, packet.pos, packet.size)
            for packet in container.demux()
            if packet.size
        ]
    table = file.stat().st_size - sum(size for *_, size in packets)
    video = [one[1:] for one in packets if one[0] == "video"]
    key = max(time for time, is_key, _, _ in video if is_key and time <= times.min() + 0.001)
    first = next(place for time, is_key, place, _ in video if is_key and time == key)
    end = max(place + size for time, _, place, size in video if time <= times.max() + 0.001)
    return table + video[0][3] + end - first


@pytest.mark.parametrize("faststart", [True, False])
@pytest.mark.parametrize("place", ["http", "memory"])
def test_only_what_is_decoded_is_fetched(
    faststart: bool, place: str, tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = write_noise(tmp_path / "a.mp4", faststart=faststart)
    address = put(server, "a.mp4", file.read_bytes()) if place == "http" else memory(file)
    sent: list[int] = []
    if place == "memory":
        filesystem = fsspec.filesystem("memory")
        read = filesystem.cat_file

        def count(path: str, start: int, end: int) -> bytes:
            sent.append(len(data := read(path, start=start, end=end)))
            return data

        monkeypatch.setattr(filesystem, "cat_file", count)
    times = 5 + 0.08 * np.arange(16)
    with Workers() as workers:
        assert workers.examine(address, quick=True).ok
    assert np.array_equal(read_frames(address, times), read_frames(file, times))
    sent = sent or [count for _, _, count in server.asked]
    assert sum(sent) <= MOST * count_needed(file, times)
    # the head, the table where it stands behind, the rest of the first picture in two, the clip, what ends with it
    assert len(sent) <= (5 if faststart else 6)
    before = len(sent)
    index_cache.forget()
    assert index(address).key_times.tolist() == index(file).key_times.tolist()
    read_frames(address, times)
    assert len(sent) == before if place == "memory" else len(server.asked) == before


def test_all_of_a_file_costs_no_more_than_the_file(tmp_path: Path, server: FileServer) -> None:
    file = write_noise(tmp_path / "a.mp4", faststart=False, frames=100)
    address = put(server, "a.mp4", file.read_bytes())
    with Workers() as workers:
        assert workers.examine(address, quick=True).ok
        read_frames(address, np.arange(0, 4, 0.1))
        assert workers.examine(address, quick=False).ok
    read_sound(address, sample_rate=16000)
    assert server.sent("/a.mp4") <= file.stat().st_size
    assert_nothing_twice(server)


def test_a_broken_connection_is_taken_up_where_it_broke(tmp_path: Path, server: FileServer) -> None:
    content = np.random.default_rng(0).bytes(400_000)
    address = put(server, "a.bin", content)
    server.breaks = 2
    with open_bytes(address) as file:
        assert file.read() == content
    assert_nothing_twice(server)


def test_a_server_that_is_silent_for_a_moment(server: FileServer) -> None:
    address = put(server, "a.bin", b"hello")
    server.silent = 2
    with open_bytes(address) as file:
        assert file.read() == b"hello"


def test_a_server_that_does_not_answer(server: FileServer, monkeypatch: pytest.MonkeyPatch) -> None:
    address = put(server, "a.bin", b"hello")
    server.silent = 1000
    for tries, name in ((3, "a.bin"), (1, "b.bin"), (0, "a.bin")):  # patient once; then what failed is remembered
        before = server.silent
        assert code_of(f"{server.url}/{name}") == "no-answer"
        assert before - server.silent == tries
    server.silent = 0
    monkeypatch.setattr(blocks, "_TRIED_SECONDS", 0.0)
    with open_bytes(address) as file:
        assert file.read() == b"hello"
    monkeypatch.setattr(remote, "TIMEOUT_SECONDS", 0.05)
    with serve(files={"/a.bin": b"hello"}, hangs=True) as slow:
        assert code_of(f"{slow.url}/a.bin") == "no-answer"
        slow.let_go.set()


def code_of(address: str) -> str:
    with pytest.raises(MediaError) as caught, open_bytes(address) as file:
        file.read()
    assert caught.value.path == address
    return caught.value.code


@pytest.mark.parametrize(
    ("status", "code"),
    [(404, "missing"), (410, "missing"), (401, "refused"), (403, "refused"), (500, "no-answer"), (503, "no-answer")],
)
def test_what_a_server_says(status: int, code: str, server: FileServer) -> None:
    put(server, "a.mp4", b"hello")
    server.statuses["/a.mp4"] = status
    assert code_of(f"{server.url}/a.mp4") == code
    with Workers() as workers:  # a child hears the same
        assert workers.examine(f"{server.url}/a.mp4", quick=True).code == code


def test_addresses_of_nothing(server: FileServer) -> None:
    assert code_of(put(server, "a.mp4", b"")) == "empty"
    assert code_of("http://127.0.0.1:1/a.mp4") == "no-answer"
    assert code_of("http://127.0.0.1:port/a.mp4") == "missing"
    assert code_of("memory://nothing/a.mp4") == "missing"
    fsspec.filesystem("memory").pipe_file("/void/a.mp4", b"")
    assert code_of("memory://void/a.mp4") == "empty"
    assert code_of("memory://void") == "not-a-file"


@pytest.mark.parametrize("tells_length", [True, False])
def test_a_server_without_ranges_sends_all_once(tells_length: bool, tmp_path: Path, server: FileServer) -> None:
    file = write_numbered(tmp_path / "a.mp4", 80)
    server.ranges, server.tells_length = False, tells_length
    address, times = put(server, "a.mp4", file.read_bytes()), np.array([0.0, 2.0])
    with Workers() as workers:
        assert workers.examine(address, quick=True).ok
    assert np.array_equal(read_frames(address, times), read_frames(file, times))
    assert server.sent("/a.mp4") == file.stat().st_size


@pytest.mark.parametrize("place", ["http", "memory"])
def test_what_changes_under_us_is_an_error(place: str, tmp_path: Path, server: FileServer) -> None:
    old, new = (np.random.default_rng(seed).bytes(300_000) for seed in (1, 2))
    file = tmp_path / "a.bin"
    file.write_bytes(old)
    address = put(server, "a.bin", old) if place == "http" else memory(file)
    with open_bytes(address) as opened:
        assert opened.read(1000) == old[:1000]
        file.write_bytes(new)
        server.stamps["/a.bin"] = '"another"'
        put(server, "a.bin", new)
        memory(file)
        with pytest.raises(MediaError) as caught:
            opened.read()
    assert (caught.value.code, caught.value.path) == ("changed", address)


def test_a_change_of_a_video_is_not_taken_for_its_end(tmp_path: Path, server: FileServer) -> None:
    file = write_noise(tmp_path / "a.mp4", faststart=True, frames=100)
    address = put(server, "a.mp4", file.read_bytes())
    index(address)
    server.stamps["/a.mp4"] = '"another"'
    with pytest.raises(MediaError) as caught:
        read_frames(address, np.array([3.0]))
    assert caught.value.code == "changed"


def test_no_more_is_kept_than_there_is_room(
    tmp_path: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(blocks, "MOST_BYTES", 400_000)
    contents = {f"{number}.bin": np.random.default_rng(number).bytes(250_000) for number in range(4)}
    for _ in range(2):
        for name, content in contents.items():
            with open_bytes(put(server, name, content)) as file:
                assert file.read() == content
    held = sum(file.stat().st_blocks * 512 for file in blocks.folder().iterdir())
    assert held <= 400_000 + 250_000 + len(contents) * 3 * 4096
    assert code_of(put(server, "large.bin", bytes(500_000))) == "too-big"


def test_one_that_is_let_go_of_while_it_is_read(server: FileServer) -> None:
    content = np.random.default_rng(0).bytes(300_000)
    with open_bytes(put(server, "a.bin", content)) as file:
        assert file.read(70_000) == content[:70_000]
        blocks._drop(f"{server.url}/a.bin")
        assert file.read() == content[70_000:]


LEAVES = """
import os, signal, sys, tempfile
tempfile.tempdir = sys.argv[2]
import fsspec
fsspec.filesystem("memory").pipe_file("/a.bin", b"hello")
from tubelet.media import blocks
blocks.hold("memory://a.bin", 0, 5)
print(blocks.folder(), flush=True)
os.kill(os.getpid(), int(sys.argv[1]))
"""


def test_the_folder_goes_with_the_command_or_before_the_next_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = {name: value for name, value in os.environ.items() if name != blocks.FOLDER}

    def run(number: int) -> Path:
        typed = [sys.executable, "-c", LEAVES, str(number), str(tmp_path)]
        return Path(subprocess.run(typed, env=alone, capture_output=True, text=True).stdout.strip())

    killed = run(signal.SIGKILL)
    assert (killed.parent, killed.is_dir()) == (tmp_path, True)
    with subprocess.Popen(
        [sys.executable, "-c", LEAVES.replace("os.kill", "input(); os.kill"), "0", str(tmp_path)],
        env=alone,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as living:
        assert living.stdin
        assert living.stdout
        lives = Path(living.stdout.readline().strip())
        assert (killed.exists(), lives.is_dir()) == (False, True)
        ended = run(0)
        assert (ended.parent, ended.exists(), lives.is_dir()) == (tmp_path, False, True)
        living.stdin.write("\n")
    assert not lives.exists()


def test_names() -> None:
    root = Path("/data")
    assert join(root, "https://h/a b.mp4?x=1") == "https://h/a b.mp4?x=1"
    assert join(root, "a/b.mp4") == root / "a/b.mp4"
    assert name_from(root, "s3://b//c.mp4") == "s3://b//c.mp4"
    assert name_from(root, "/data/a.mp4") == "a.mp4"
    assert suffix("https://h/a.MP4?name=b.png") == ".mp4"
    assert all(map(is_remote, ("gs://b/a", "HTTP://h/a")))
    assert not any(map(is_remote, ("file:///a", "a/https://b", "C:/a", Path("https://h/a"))))


def test_a_driver_that_is_missing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "s3fs", None)
    with pytest.raises(ValueError, match=naming("s3fs", "tubelet[cloud]")):
        index("s3://bucket/a.mp4")
    (tmp_path / "a.csv").write_text("path,label\ns3://bucket/a.mp4,x\ns3://bucket/b.mp4,y\n")
    with pytest.raises(ValueError, match=naming("s3fs", "tubelet[cloud]")):
        check(tmp_path / "a.csv", show=False)


def test_copies_elsewhere_are_found_by_their_ends(tmp_path: Path, server: FileServer) -> None:
    files = [write_noise(tmp_path / f"{number}.mp4", faststart=True, frames=20 + number) for number in range(2)]
    names = [put(server, name, files[which].read_bytes()) for name, which in (("a.mp4", 0), ("b.mp4", 0), ("c.mp4", 1))]
    assert same_contents(tmp_path, names) == ((names[0], names[1]),)
    assert mark_content(names[0]) == mark_content(names[1]) != mark_content(names[2])
    assert server.sent("/c.mp4") <= 2 * (1 << 16) + 3 * blocks.BLOCK_BYTES
    assert mark_content(f"{server.url}/none.mp4") == ""


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    root = tmp_path_factory.mktemp("here")
    write_videos(root / "clips", 5)
    names = [(name, number) for name in ("dark", "bright") for number in range(5)]
    rows = [f"clips/{name}/{number}.mp4,{name},{'val' if number == 4 else 'train'}" for name, number in names]
    (root / "clips.csv").write_text("\n".join(["path,label,split", *rows]))
    train_fn(tiny_config(root / "clips.csv", root / "run"), show=False)
    return root, root / "run"


def weights(run: Path) -> dict[str, Any]:
    return dict(load_file(run / "model.safetensors"))


def test_training_from_addresses_gives_the_same_bits(
    trained: tuple[Path, Path], tmp_path: Path, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = trained
    for file in (root / "clips").rglob("*.mp4"):
        put(server, file.relative_to(root).as_posix(), file.read_bytes())
    text = (root / "clips.csv").read_text()
    table = tmp_path / "far.csv"
    table.write_text(text.replace("clips/", f"{server.url}/clips/"))
    train_fn(tiny_config(table, tmp_path / "run"), show=False)
    here, far = weights(run), weights(tmp_path / "run")
    assert here.keys() == far.keys()
    assert all((here[name] == far[name]).all() for name in here)
    for path, content in server.files.items():
        assert server.sent(path) <= len(content)
    assert command("eval", tmp_path / "run", table, "--device", "cpu") == 0
    assert command("embed", run, table, "--out", tmp_path / "vectors", "--device", "cpu") == 0
    assert command("prepare", table, tmp_path / "small", "--short-side", "16") == 0
    assert command("check", table) == 0
    one = f"{server.url}/clips/dark/0.mp4"
    assert command("predict", run, one, "--device", "cpu") == 0
    assert command("explain", run, one, "--out", tmp_path / "maps", "--device", "cpu") == 0
    assert command("search", tmp_path / "vectors", one, "--device", "cpu") == 0
    assert one in capsys.readouterr().out
    assert_nothing_twice(server)


def test_one_bad_address_is_a_bad_file(
    trained: tuple[Path, Path], tmp_path: Path, server: FileServer, capsys: pytest.CaptureFixture[str]
) -> None:
    root, run = trained
    for file in (root / "clips").rglob("*.mp4"):
        put(server, file.relative_to(root).as_posix(), file.read_bytes())
    del server.files["/clips/dark/0.mp4"]
    server.statuses["/clips/bright/4.mp4"] = 403
    table = tmp_path / "far.csv"
    table.write_text((root / "clips.csv").read_text().replace("clips/", f"{server.url}/clips/"))
    assert {health.code for health in check(table, show=False)} == {"ok", "missing", "refused"}
    train_fn(tiny_config(table, tmp_path / "run", max_bad="50%"), show=False)
    listed = (tmp_path / "run" / "bad_files.jsonl").read_text()
    assert listed.count("clips/dark/0.mp4") == listed.count("clips/bright/4.mp4") == 1
    assert command("predict", run, *(f"{server.url}/clips/dark/{number}.mp4" for number in range(2))) == 3
    assert f"{server.url}/clips/dark/0.mp4" in capsys.readouterr().err
