"""`tubelet search`: what it finds, prints and draws, and what it refuses."""

import base64
import io
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from naming import naming
from PIL import Image
from small_sets import command, pictures, spoil, write_image, write_images, write_sounds, write_videos
from test_embeddings import CPU, IMAGE, SOUND, VIDEO, write_weights

from tubelet.embed import duplicates, search, sheet
from tubelet.embed.embeddings import Embeddings
from tubelet.media.writer import write_video

CLIPS = 4


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """clips/, weights/ and embedded/, their vectors; one clip under a name that a page must not take for markup."""
    place = tmp_path_factory.mktemp("search")
    write_videos(place / "clips", CLIPS)
    (place / "clips" / "dark" / "2.mp4").rename(place / "clips" / "dark" / "<b>ü & co.mp4")
    write_weights(place / "weights")
    assert command("embed", place / "weights", place / "clips", "--out", place / "embedded", *CPU) == 0
    return place


def error_of(capsys: pytest.CaptureFixture[str], *values: object) -> None:
    shown = capsys.readouterr()
    assert shown.out == ""
    assert re.fullmatch(r"tubelet: .*\n", shown.err), shown.err
    assert re.search(naming(*values), shown.err), shown.err


def test_the_likest_are_printed_first_and_a_file_does_not_find_itself(
    place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tubelet.system.console.console._width", None)  # whatever COLUMNS says
    asked = place / "clips" / "dark" / "0.mp4"
    capsys.readouterr()
    assert command("search", place / "embedded", asked, "--json", *CPU) == 0
    rows = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row["rank"] for row in rows] == list(range(1, 2 * CLIPS))
    assert {row["file"] for row in rows} == {str(asked)}
    assert str(asked) not in {row["path"] for row in rows}
    found = Embeddings.load(place / "embedded", device="cpu")
    hits = found.search(found.vectors[[row.path for row in found.rows].index(str(asked))], k=2 * CLIPS)[1:]
    assert [tuple(row.values())[2:] for row in rows] == [tuple(hit) for hit in hits]
    assert command("search", place / "embedded", asked, "--top", "2", *CPU) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 4
    assert hits[0].path in lines[2]
    assert f"{hits[0].similarity:.4f}" in lines[2]
    assert "0:00.0 to 0:00.3" in lines[2]


def test_a_new_file_and_a_changed_one_are_embedded_by_the_model_of_the_folder(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copy(place / "clips" / "dark" / "0.mp4", tmp_path / "copy.mp4")
    assert command("search", place / "embedded", tmp_path / "copy.mp4", "--top", "1", "--json", *CPU) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["path"] == str(place / "clips" / "dark" / "0.mp4")
    assert found["similarity"] == pytest.approx(1)
    clips = shutil.copytree(place / "clips", tmp_path / "clips")
    assert command("embed", place / "weights", clips, "--out", tmp_path / "out", *CPU) == 0
    vectors = Embeddings.load(tmp_path / "out", device="cpu")
    before = search.find_vector(vectors, str(clips / "dark" / "0.mp4"))
    shutil.copy(clips / "bright" / "0.mp4", clips / "dark" / "0.mp4")
    assert not np.allclose(search.find_vector(vectors, str(clips / "dark" / "0.mp4")), before)


def test_windows_are_found_one_by_one(place: Path, tmp_path: Path) -> None:
    clips = [pictures(level, [level, 3], frames=8) for level in (60, 190)]
    (tmp_path / "films").mkdir()
    write_video(tmp_path / "films" / "film.mp4", np.concatenate([*clips, clips[0]]), frames_per_second=25)
    write_video(tmp_path / "bright.mp4", clips[1], frames_per_second=25)
    out = tmp_path / "out"
    assert command("embed", place / "weights", tmp_path / "films", "--out", out, "--windows", "0.32", *CPU) == 0
    ((_, hits),) = search.search_files(Embeddings.load(out, device="cpu"), [tmp_path / "bright.mp4"], top=3)
    assert hits[0][1:3] == (0.32, 0.64)
    assert len(hits) == 3


# ---- the contact sheet


@pytest.mark.parametrize("kind", ["video", "image", "sound"])
def test_a_contact_sheet_shows_what_was_found(kind: str, place: Path, tmp_path: Path) -> None:
    if kind == "video":
        out, data = place / "embedded", place / "clips"
    else:
        spec, write = (IMAGE, write_images) if kind == "image" else (SOUND, write_sounds)
        weights, data, out = write_weights(tmp_path / "weights", spec), write(tmp_path / "data", 2), tmp_path / "out"
        assert command("embed", weights, data, "--out", out, *CPU) == 0
    files = sorted(data.rglob("*.*"))
    page = tmp_path / "page.html"
    assert command("search", out, files[0], files[-1], "--top", "3", "--out", page, *CPU) == 0
    text = page.read_text()
    pictures = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)"', text)
    assert len(pictures) == 2 * 4
    sizes = [Image.open(io.BytesIO(base64.b64decode(picture))).size for picture in pictures]
    for width, height in sizes:
        assert height <= 88
        assert (width > 3 * height) == (kind == "video")
    assert not re.search(r'(src|href)="(?!data:)|url\(', text)
    assert "prefers-color-scheme: dark" in text
    assert 'name="viewport"' in text
    assert f"<code>{files[1]}</code>" in text
    assert command("search", out, files[0], "--top", "3", "--out", tmp_path / "again.html", *CPU) == 0
    assert (tmp_path / "again.html").read_text().count("<img") == 4


def test_names_are_no_markup_and_files_that_are_gone_are_told(place: Path, tmp_path: Path) -> None:
    found = Embeddings.load(place / "embedded", device="cpu")
    hits = found.search(found.vectors[0], k=8)
    gone = hits[1]._replace(path=str(tmp_path / "gone.mp4"))
    page = tmp_path / "page.html"
    sheet.write_sheet([(Path("<i>"), [*hits, gone])], page, folder=tmp_path, settings=found.settings)
    text = page.read_text()
    assert "&lt;b&gt;ü &amp; co.mp4" in text
    assert "<i>" not in text
    assert "<b>ü" not in text
    assert text.count("cannot be read any more") == 2


# ---- what is refused: one message, exit code 2


def test_files_that_cannot_be_asked_about(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_image(tmp_path / "a.png", pictures(90, [1], frames=1)[0])
    (tmp_path / "b.mp4").write_bytes(b"")
    spoil(tmp_path / "b.mp4")
    for name, values in (
        ("a.png", ("a.png", "'image'", "'video'")),
        ("b.mp4", ("b.mp4",)),
        ("c.mp4", ("c.mp4",)),
    ):
        assert command("search", place / "embedded", tmp_path / name, *CPU) == 2
        error_of(capsys, *values)


def test_folders_and_settings_that_cannot_be(place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    clip = place / "clips" / "dark" / "0.mp4"
    other = write_weights(tmp_path / "other", replace(VIDEO, seconds_between_frames=0.16))
    shutil.copy(clip, tmp_path / "new.mp4")
    for typed, values in (
        ((tmp_path, clip), (tmp_path, "vectors.safetensors", "`tubelet embed`")),
        ((place / "embedded", tmp_path / "new.mp4", "--run", other), (place / "embedded", other, "--run")),
        ((place / "embedded", clip, "--top", "0"), ("--top 0",)),
        ((place / "embedded",), ("`tubelet search FOLDER clip.mp4`", "--duplicates")),
        ((place / "embedded", clip, "--duplicates"), ("`tubelet search FOLDER clip.mp4`", "--duplicates")),
    ):
        assert command("search", *typed, *CPU) == 2
        error_of(capsys, *values)


# ---- tubelet embed, as it is typed


def test_embed_says_what_failed_and_what_comes_next(
    place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    clips = shutil.copytree(place / "clips", tmp_path / "clips")
    capsys.readouterr()
    assert command("embed", place / "weights", clips, "--out", tmp_path / "out", *CPU) == 0
    assert f"tubelet search {tmp_path / 'out'} FILE" in capsys.readouterr().out
    spoil(clips / "dark" / "1.mp4")
    assert command("embed", place / "weights", clips, "--out", tmp_path / "out", "--json", *CPU) == 3
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert (found["vectors"], found["width"], found["model"]) == (
        2 * CLIPS - 1,
        24,
        "vivit1/16x2 of width 24, 1 layers, 4 heads",
    )
    ((failure),) = found["failures"]
    assert failure["path"] == str(clips / "dark" / "1.mp4")
    assert failure["code"] == "not-video"
    assert failure["path"] in shown.err


# ---- files that show the same


def film(seed: int, seconds: float = 1.6, *, place: int | None = None) -> np.ndarray:
    """Frames (T, H, W, 3) of blots that wander before a cloudy wall, that of a place, 25 a second."""
    rng = np.random.default_rng(seed)
    wall = np.kron(
        np.random.default_rng([seed if place is None else place]).integers(60, 200, (6, 8)), np.ones((12, 12))
    )
    times = np.arange(round(25 * seconds)) / 25
    places = [rng.uniform(10, 60) + rng.uniform(5, 25) * np.sin(rng.uniform(2, 5) * times) for _ in range(4)]
    y, x = np.mgrid[:72, :96]
    frames = np.repeat(wall[None], len(times), axis=0)
    for down, right, level in ((places[0], places[1], 250), (places[2], places[3], 10)):
        blot = np.hypot(y - down[:, None, None], x - right[:, None, None]) < 14
        frames = np.where(blot, level, frames)
    return frames[..., None].repeat(3, axis=3).astype(np.uint8)


COPIES = {
    "again": (lambda frames: frames, 25, 35),
    "cropped": (lambda frames: frames[:, 4:68, 2:88], 25, 20),
    "trimmed": (lambda frames: frames[6:38], 25, 20),
    "faster": (lambda frames: frames, 27.5, 20),
    "mirrored": (lambda frames: frames[:, :, ::-1], 25, 20),
    "squeezed": (lambda frames: frames[:, ::2, ::3], 25, 20),
}


@pytest.fixture(scope="module")
def copied(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Six clips; of the first a copy for each change, of the second one that is the same to the byte."""
    place = tmp_path_factory.mktemp("copied")
    for number in range(6):
        write_video(place / f"clip-{number}.mp4", film(number), frames_per_second=25)
    for name, (make, rate, crf) in COPIES.items():
        write_video(place / f"copy-{name}.mp4", np.ascontiguousarray(make(film(0))), frames_per_second=rate, crf=crf)
    shutil.copy(place / "clip-1.mp4", place / "linked.mp4")
    return place


def test_changed_copies_are_found_and_mirrored_ones_are_said_to_be(
    copied: Path, place: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("embed", place / "weights", copied, "--out", tmp_path / "out", *CPU) == 0
    capsys.readouterr()
    page = tmp_path / "page.html"
    assert command("search", tmp_path / "out", "--duplicates", "--json", "--out", page, *CPU) == 0
    sets = [json.loads(line)["files"] for line in capsys.readouterr().out.splitlines()]
    names = [[Path(one["path"]).stem for one in files] for files in sets]
    assert names == [["clip-0", *sorted(f"copy-{name}" for name in COPIES)], ["clip-1", "linked"]]
    assert {Path(one["path"]).stem for files in sets for one in files if one["mirrored"]} == {"copy-mirrored"}
    assert sets[1][1]["likeness"] == 1
    assert page.read_text().count("<img") == 9
    assert page.read_text().count("</b>mirrored<br>") == 1
    assert command("search", tmp_path / "out", "--duplicates", *CPU) == 0
    shown = capsys.readouterr().out
    assert len([line for line in shown.splitlines() if "mirrored" in line.split()]) == 1
    assert "2 sets of 9 files" in shown


def test_what_a_standing_camera_records_at_two_times_is_no_copy(tmp_path: Path) -> None:
    one, other = film(7), film(8, place=7)
    paths = [tmp_path / "one.mp4", tmp_path / "other.mp4", tmp_path / "backwards.mp4"]
    for path, frames in zip(paths, (one, other, one[::-1]), strict=True):
        write_video(path, np.ascontiguousarray(frames), frames_per_second=25)
    assert duplicates.find_pairs([str(path) for path in paths]) == []


def test_images_are_compared_and_sounds_are_not(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    images = tmp_path / "images"
    images.mkdir()
    for number in range(4):
        write_image(images / f"{number}.png", film(number, 0.04)[0])
    Image.fromarray(film(2, 0.04)[0]).save(images / "copy.jpg", quality=40)
    found = duplicates.find_pairs([str(file) for file in images.iterdir()])
    assert [(Path(pair.path).name, Path(pair.other).name, pair.mirrored) for pair in found] == [
        ("2.png", "copy.jpg", False)
    ]
    weights = write_weights(tmp_path / "weights", SOUND)
    assert command("embed", weights, write_sounds(tmp_path / "data", 1), "--out", tmp_path / "out", *CPU) == 0
    capsys.readouterr()
    assert command("search", tmp_path / "out", "--duplicates", *CPU) == 2
    error_of(capsys, tmp_path / "out", "--duplicates", "sounds")


def test_a_line_is_followed_at_any_start_and_rate() -> None:
    def products(start: float, rate: float, pictures: int = 40) -> np.ndarray:
        times = start + (np.arange(8) + 0.5) / 8 * rate * 4.0
        found = np.zeros((8, pictures))
        found[np.arange(8), (times / 5.0 * pictures).astype(int)] = 1
        return found

    for start, rate in ((0.0, 1.0), (1.0, 1.0), (0.4, 1.1), (0.55, 1 / 1.1), (0.3, 1.1)):
        assert duplicates.follow(products(start, rate), 4.0, 5.0) > 0.95
    assert duplicates.follow(products(0.5, 1.0)[::-1], 4.0, 5.0) < 0.5
    assert duplicates.follow(np.full((1, 1), 0.3), 0.0, 0.0) == pytest.approx(0.3)


def test_sets_are_of_all_that_pairs_hold_together() -> None:
    pairs = [("b", "c", True), ("d", "c", True), ("e", "f", False), ("d", "a", False)]
    found = duplicates.join([duplicates.Pair(one, other, 0.9, mirrored) for one, other, mirrored in pairs])
    assert [[(copy.path, copy.mirrored) for copy in copies] for copies in found] == [
        [("a", False), ("b", False), ("c", True), ("d", False)],
        [("e", False), ("f", False)],
    ]
    assert duplicates.join([]) == []
