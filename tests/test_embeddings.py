"""Vectors of files: what they are, that they are the same however and whenever they were made, and exact search."""

import json
import os
import shutil
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from failing_disk import Disk, end, in_child
from naming import naming
from small_sets import SOUND, VIDEO, command, pictures, spoil, write_images, write_sounds, write_videos
from tiny import tiny

import tubelet
from tubelet import ClipSpec, Embeddings
from tubelet.data.clips import crop, load_times, views
from tubelet.embed import embeddings, folder, writer
from tubelet.embed.embedder import Embedder
from tubelet.embed.embeddings import measure, rank
from tubelet.embed.folder import FILE, INDEX, Row, Vectors, part_files, read_vectors, write_vectors
from tubelet.embed.parquet import make_columns
from tubelet.embed.writer import embed
from tubelet.features.store import write_features
from tubelet.media.writer import write_video
from tubelet.nn.split import encode_steps
from tubelet.stream.codes import hash_steps
from tubelet.system.errors import EnvironmentTrouble
from tubelet.system.exits import Stopped
from tubelet.weights.store import save

IMAGE = replace(VIDEO, kind="image", frames=1, seconds_between_frames=0.0)
CPU = ("--device", "cpu", "--workers", "1")


def write_weights(path: Path, spec: ClipSpec = VIDEO, **settings: Any) -> Path:
    """Weights without a head, and with a ClipSpec, as `tubelet convert` writes them."""
    patch = (2, 16, 16) if spec.kind == "video" else (1, 16, 16)
    family = "vivit1" if spec.kind == "video" else "vit"
    like = {"clip": spec.clip_size, "channels": spec.num_channels, "mean": spec.mean, "std": spec.std}
    model = tiny(family, patch=patch, depth=1, **{"num_classes": 0} | like | settings)
    return save(model, path, about={"clip_spec": spec.to_json()})


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights") / "model.safetensors")


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten clips, one broken, one under a name that is no ASCII."""
    root = write_videos(tmp_path_factory.mktemp("data") / "clips", 5)
    spoil(root / "dark" / "3.mp4")
    (root / "dark" / "2.mp4").rename(root / "dark" / "zwölf 🎬 #t=1.mp4")
    return root


@pytest.fixture(scope="module")
def made(weights: Path, data: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("made") / "embedded"
    run(weights, [data], out)
    return out


def run(weights: Path, data: list[Path], out: Path, **settings: Any) -> Vectors:
    return embed(weights, data, out, **{"device": "cpu", "workers": 1, "show": False} | settings)


def bytes_of(out: Path) -> dict[str, bytes]:
    return {file.name: file.read_bytes() for file in out.iterdir()}


# ---- what a vector is


def test_a_vector_is_the_mean_of_the_features_of_its_views(weights: Path, data: Path, made: Path) -> None:
    found, model = read_vectors(made / FILE), tubelet.load(weights)
    assert found.vectors.shape == (9, 24)
    for row, number in found.numbered():
        if number is None:
            continue
        clips = views(row.path, VIDEO, temporal=None)
        with torch.no_grad():
            expected = torch.stack([model.features(clip[None])[0] for clip in clips]).mean(0)
        assert np.allclose(found.vectors[number], expected, atol=1e-5)


def test_the_index_has_a_row_for_each_file_and_a_broken_one_has_a_code_and_no_vector(data: Path, made: Path) -> None:
    rows = [json.loads(line) for line in (made / INDEX).read_text().splitlines()]
    files = sorted(str(file) for file in data.rglob("*.mp4"))
    assert [row["path"] for row in rows] == files
    assert [row["vector"] for row in rows] == [0, 1, 2, 3, 4, 5, 6, None, 7, 8]
    broken = rows[7]
    assert Path(broken["path"]).name == "3.mp4"
    assert broken["code"] == "not-video"
    assert broken["path"] in broken["message"]
    assert {row["seconds"] for row in rows if row["code"] == "ok"} == {0.32}
    assert len({row["mark"] for row in rows}) == 10


@pytest.mark.parametrize("kind", ["image", "sound"])
def test_images_and_sounds_have_vectors(kind: str, tmp_path: Path) -> None:
    spec, write = (IMAGE, write_images) if kind == "image" else (SOUND, write_sounds)
    weights = write_weights(tmp_path / "weights", spec)
    found = run(weights, [write(tmp_path / "data", 2)], tmp_path / "out")
    assert found.vectors.shape == (4, 24)
    assert len(np.unique(found.vectors, axis=0)) == 4
    assert [row.span[1] for row in found.rows] == [0.0 if kind == "image" else 0.5] * 4


def test_rows_of_a_table_are_parts_of_files_whatever_they_are_labelled(
    weights: Path, data: Path, tmp_path: Path
) -> None:
    table = data / "parts.csv"
    table.write_text("path,label,start,end\nbright/0.mp4,a,0,0.16\nbright/0.mp4,,0.16,0.32\ngone.mp4,b,,\n")
    found = run(weights, [table], tmp_path / "out")
    table.unlink()
    assert [(Path(row.path).name, *row.span, row.code) for row in found.rows] == [
        ("0.mp4", 0.0, 0.16, "ok"),
        ("0.mp4", 0.16, 0.32, "ok"),
        ("gone.mp4", 0.0, 0.0, "missing"),
    ]
    clip = views(data / "bright" / "0.mp4", VIDEO, temporal=None, start_seconds=0.16, end_seconds=0.32)
    assert np.allclose(found.vectors[1], Embedder.load(weights, device="cpu").embed(clip), atol=1e-6)


def test_windows_cover_a_file_and_each_has_its_vector(weights: Path, tmp_path: Path) -> None:
    write_video(tmp_path / "long.mp4", pictures(90, [7], frames=52), frames_per_second=25)
    write_video(tmp_path / "short.mp4", pictures(90, [8], frames=8), frames_per_second=25)
    found = run(weights, [tmp_path], tmp_path / "out", windows=0.5)
    spans = [row.span for row in found.rows]
    assert np.allclose(spans, [(0.0, 0.5), (0.5, 1.0), (1.0, 1.5), (1.5, 2.08), (0.0, 0.32)])
    embedder = Embedder.load(weights, device="cpu")
    for row, vector in zip(found.rows, found.vectors, strict=True):
        clips = views(row.path, VIDEO, temporal=None, start_seconds=row.start_seconds, end_seconds=row.end_seconds)
        assert np.array_equal(vector, embedder.embed(clips))


def test_a_head_changes_nothing(weights: Path, made: Path, data: Path, tmp_path: Path) -> None:
    other = write_weights(tmp_path / "with-head", num_classes=3)
    model, same = tubelet.load(other), tubelet.load(weights)
    model.load_state_dict(same.state_dict(), strict=False)
    save(model, other, about={"clip_spec": VIDEO.to_json(), "classes": ["a", "b", "c"]})
    run(other, [data], tmp_path / "out")
    assert np.array_equal(read_vectors(tmp_path / "out" / FILE).vectors, read_vectors(made / FILE).vectors)


def test_codes_stand_for_the_video_that_they_were_made_of(tmp_path: Path) -> None:
    model = tiny("vivit2", patch=(2, 16, 16), depth=1, clip=VIDEO.clip_size, num_classes=0)
    weights = save(model, tmp_path / "weights", about={"clip_spec": VIDEO.to_json()})
    write_video(tmp_path / "a.mp4", pictures(90, [7], frames=40), frames_per_second=25)
    clip = load_times(tmp_path / "a.mp4", VIDEO, np.arange(20) * 0.08)
    steps = encode_steps(tubelet.load(weights), crop(clip, VIDEO.crop))
    codes, key = tmp_path / "a.safetensors", hash_steps(model, VIDEO)
    write_features(codes, steps, key=key, path="a.mp4", seconds=(0.0, 1.6))
    for windows in (None, 0.32):
        found = run(weights, [tmp_path / "a.mp4", codes], tmp_path / f"{windows}", windows=windows)
        of_video, of_codes = np.split(found.vectors, 2)
        assert len(of_video) == (5 if windows else 1)
        assert np.allclose(of_video, of_codes, atol=1e-5)
        assert np.allclose(*np.split(np.array([row.span for row in found.rows]), 2))
    write_features(codes, steps, key="0" * 64, path="a.mp4", seconds=(0.0, 1.6))
    with pytest.raises(ValueError, match=naming(codes, "00000000")):
        run(weights, [codes], tmp_path / "other")
    other = write_weights(tmp_path / "vivit1")
    with pytest.raises(ValueError, match=naming(codes, "vivit1")):
        run(other, [codes], tmp_path / "other")


# ---- the same bytes


@pytest.mark.parametrize("workers", [1, 3])
def test_the_same_bytes_whatever_the_workers(
    workers: int, weights: Path, data: Path, made: Path, tmp_path: Path
) -> None:
    run(weights, [data], tmp_path / "out", workers=workers)
    assert bytes_of(tmp_path / "out") == bytes_of(made)


def test_the_same_bytes_whatever_is_named_first_or_twice(
    weights: Path, data: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(data)
    out = tmp_path / "out"
    run(weights, [Path("dark"), Path("bright/4.mp4")], out)
    assert len(read_vectors(out / FILE).rows) == 6
    before = bytes_of(made)
    run(weights, [Path("."), data / "bright"], out)
    assert bytes_of(out) == before
    run(weights, [data / "bright"], out)  # what is not named stays
    assert bytes_of(out) == before


def stop_after(monkeypatch: pytest.MonkeyPatch, vectors: int, error: BaseException) -> None:
    """From here on the work ends with an error after so many vectors."""
    embed_clips, left = Embedder.embed, [vectors]

    def embed_and_stop(self: Embedder, clips: torch.Tensor) -> np.ndarray:
        if not left[0]:
            raise error
        left[0] -= 1
        return embed_clips(self, clips)

    monkeypatch.setattr(Embedder, "embed", embed_and_stop)


@pytest.mark.parametrize("windows", [None, 0.12])
def test_it_goes_on_bit_for_bit_however_often_it_is_cut_short(
    windows: float | None, weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(weights, [data], tmp_path / "whole", windows=windows)
    monkeypatch.setattr(writer, "SAVE_SECONDS", 0.0)
    parts = []
    for vectors in (0, 1, 4):
        with monkeypatch.context() as patch:
            stop_after(patch, vectors, KeyboardInterrupt())
            with pytest.raises(KeyboardInterrupt):
                run(weights, [data], tmp_path / "cut", windows=windows)
        parts.append(len(part_files(tmp_path / "cut")))
    assert parts[0] == 0
    assert parts[1] == 1
    assert parts[2] > 4
    assert not (tmp_path / "cut" / FILE).exists()
    left = tmp_path / "cut" / ".vectors.safetensors.1234.tmp"
    left.write_bytes(b"of a process that was killed")
    run(weights, [data], tmp_path / "cut", windows=windows)
    assert bytes_of(tmp_path / "cut") == bytes_of(tmp_path / "whole")


def test_a_signal_saves_what_is_made_and_says_how_to_go_on(
    weights: Path, data: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import signal

    embed_clips, seen = Embedder.embed, []

    def embed_and_signal(self: Embedder, clips: torch.Tensor) -> np.ndarray:
        seen.append(clips)
        if len(seen) == 4:
            os.kill(os.getpid(), signal.SIGINT)
        return embed_clips(self, clips)

    with monkeypatch.context() as patch:
        patch.setattr(Embedder, "embed", embed_and_signal)
        with pytest.raises(Stopped, match=naming(tmp_path / "out")):
            run(weights, [data], tmp_path / "out")
    assert sum(len(read_vectors(file).vectors) for file in part_files(tmp_path / "out")) == 4
    with pytest.raises(ValueError, match=naming(tmp_path / "out", FILE, "`tubelet embed`")):
        Embeddings.load(tmp_path / "out")
    monkeypatch.setattr(Embedder, "embed", lambda self, clips: (seen.append(clips), embed_clips(self, clips))[1])
    run(weights, [data], tmp_path / "out")
    assert len(seen) == 9
    assert bytes_of(tmp_path / "out") == bytes_of(made)


def test_a_crash_at_any_call_that_changes_the_disk_loses_nothing(
    weights: Path, data: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Such as a SIGKILL, in the midst of a part, of the file of vectors, or of the copy of its index."""
    found = read_vectors(made / FILE)
    half = replace(found, rows=found.rows[:5], vectors=found.vectors[:5])

    def finish(out: Path) -> None:
        part = writer.Part(out, found.settings)
        for row, number in list(found.numbered())[5:]:
            part.add(writer.Made(row, None if number is None else found.vectors[number], True))
        new = [read_vectors(file) for file in part.write()]
        old = [read_vectors(file) for file in part_files(out)[:1]]
        folder.write_folder(out, folder.merge(old, new, found.settings, keep=lambda row: True))

    def begin(out: Path) -> Path:
        out.mkdir()
        write_vectors(out / "part-00001.safetensors", half)
        return out

    begin(tmp_path / "count")
    with monkeypatch.context() as patch:
        disk = Disk(patch)
        finish(tmp_path / "count")
    assert bytes_of(tmp_path / "count") == bytes_of(made)
    assert len(disk.calls) > 20
    for at in range(len(disk.calls)):
        out = begin(tmp_path / f"{at}")

        def crash(at: int = at, out: Path = out) -> None:
            Disk(pytest.MonkeyPatch(), at=at, fail=end)
            finish(out)

        assert in_child(crash) == 9, at
        run(weights, [data], out)
        assert bytes_of(out) == bytes_of(made), disk.calls[at]


def test_new_and_changed_and_mended_files_are_embedded_and_no_other(
    weights: Path, data: Path, made: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    clips, out = tmp_path / "clips", tmp_path / "out"
    shutil.copytree(data, clips)
    run(weights, [clips], out)
    asked: list[str] = []
    load_views = Embedder.load_views
    monkeypatch.setattr(Embedder, "load_views", lambda self, item: (asked.append(item.path), load_views(self, item))[1])
    run(weights, [clips], out)
    assert [Path(path).name for path in asked] == ["3.mp4"]  # the broken one, once more
    write_video(clips / "dark" / "3.mp4", pictures(60, [5, 5]), frames_per_second=25)
    write_video(clips / "dark" / "0.mp4", pictures(60, [5, 6]), frames_per_second=25)
    write_video(clips / "new.mp4", pictures(60, [5, 7]), frames_per_second=25)
    asked.clear()
    found = run(weights, [clips], out)
    assert sorted(Path(path).name for path in asked) == ["0.mp4", "3.mp4", "new.mp4"]
    assert {row.code for row in found.rows} == {"ok"}
    monkeypatch.undo()
    run(weights, [clips], tmp_path / "anew")
    assert bytes_of(out) == bytes_of(tmp_path / "anew")


# ---- what is refused


def test_a_folder_of_other_weights_or_settings_is_left_alone(
    weights: Path, data: Path, made: Path, tmp_path: Path
) -> None:
    torch.manual_seed(1)
    other = write_weights(tmp_path / "other", dim=48)
    blurred = write_weights(tmp_path / "blurred", replace(VIDEO, seconds_between_frames=0.16))
    before = bytes_of(made)
    for ours, settings, values in (
        (other, {}, (weights, other, "encoder:")),
        (blurred, {}, (weights, blurred, "clip_spec:")),
        (weights, {"views": "2x1"}, ("views: auto -> 2x1",)),
        (weights, {"windows": 0.5}, ("windows: None -> 0.5",)),
        (weights, {"dtype": "bfloat16"}, ("dtype: float32 -> bfloat16",)),
    ):
        with pytest.raises(ValueError, match=naming(made, *values)):
            run(ours, [data], made, **settings)
    assert bytes_of(made) == before


def test_the_same_weights_elsewhere_go_on(weights: Path, data: Path, made: Path, tmp_path: Path) -> None:
    shutil.copy(weights, tmp_path / "moved.safetensors")
    shutil.copytree(made, tmp_path / "out")
    run(tmp_path / "moved.safetensors", [data], tmp_path / "out")
    assert (tmp_path / "out" / INDEX).read_bytes() == (made / INDEX).read_bytes()


def fill(place: Path) -> Path:
    place.mkdir()
    (place / "notes.txt").write_text("mine")
    return place


def test_a_folder_of_something_else_and_one_in_use_are_left_alone(weights: Path, data: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=naming(tmp_path / "mine")):
        run(weights, [data], fill(tmp_path / "mine"))
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["notes.txt"]
    out = tmp_path / "held"
    out.mkdir()
    with writer.hold(out), pytest.raises(EnvironmentTrouble, match=naming(out)):
        run(weights, [data], out)


def no_clip_spec(place: Path) -> Path:
    return save(tiny("vivit1", patch=(2, 16, 16), clip=(4, 32, 32), num_classes=0), place)


def exported(place: Path) -> Path:
    place.mkdir()
    (place / "tubelet.json").write_text("{}")
    return place


@pytest.mark.parametrize(
    ("make", "values"),
    [
        (lambda place: place, (".safetensors",)),
        (no_clip_spec, ("ClipSpec", "--seconds-between-frames")),
        (exported, ("exported",)),
    ],
)
def test_weights_that_cannot_embed(
    make: Callable[[Path], Path], values: tuple[str, ...], data: Path, tmp_path: Path
) -> None:
    weights = make(tmp_path / "weights")
    with pytest.raises(ValueError, match=naming(weights, *values)):
        run(weights, [data], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("settings", "values"),
    [
        ({"windows": 0.0}, ("--windows 0",)),
        ({"windows": float("inf")}, ("--windows inf",)),
        ({"views": "9"}, ("views", "'9'")),
        ({"dtype": "int8"}, ("'int8'",)),
    ],
)
def test_settings_that_cannot_be(
    settings: dict[str, Any], values: tuple[str, ...], weights: Path, data: Path, tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        run(weights, [data], tmp_path / "out", **settings)


def test_images_have_no_windows(tmp_path: Path) -> None:
    weights = write_weights(tmp_path / "weights", IMAGE)
    with pytest.raises(ValueError, match=naming("--windows 2", "images")):
        run(weights, [write_images(tmp_path / "data", 1)], tmp_path / "out", windows=2.0)


def test_features_that_are_not_finite_are_refused(
    weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    nothing = torch.full((1, 24), float("nan"))
    monkeypatch.setattr("tubelet.nn.model.SpaceTimeTransformer.features", lambda self, clip: nothing)
    with pytest.raises(ValueError, match=naming(weights, "float32", "--dtype")):
        run(weights, [data], tmp_path / "out")


def test_damage_is_told(made: Path, tmp_path: Path) -> None:
    shutil.copytree(made, tmp_path / "out")
    file = tmp_path / "out" / FILE
    found = read_vectors(file)
    write_vectors(file, replace(found, rows=found.rows[1:]))
    with pytest.raises(ValueError, match=naming(file, "damaged")):
        Embeddings.load(tmp_path / "out")
    file.write_bytes((made / FILE).read_bytes()[:-1])
    with pytest.raises(ValueError, match=naming(file)):
        Embeddings.load(tmp_path / "out")
    with pytest.raises(ValueError, match=naming(tmp_path / "nowhere", FILE)):
        Embeddings.load(tmp_path / "nowhere")


def test_of_broken_files_alone_nothing_can_be_searched(weights: Path, tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    spoil(tmp_path / "data" / "a.mp4")
    assert command("embed", weights, tmp_path / "data", "--out", tmp_path / "out", *CPU) == 3
    with pytest.raises(ValueError, match=naming(tmp_path / "out", 1)):
        Embeddings.load(tmp_path / "out")


# ---- parquet


def test_parquet_is_an_extra(
    weights: Path, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    assert command("embed", weights, data, "--out", tmp_path / "out", "--parquet", *CPU) == 2
    assert "pip install 'tubelet[parquet]'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_the_table_has_a_row_for_each_file(made: Path) -> None:
    found = read_vectors(made / FILE)
    columns = make_columns(found)
    assert {len(values) for values in columns.values()} == {10}
    assert columns["code"].count("ok") == 9
    assert [vector is None for vector in columns["vector"]] == [code != "ok" for code in columns["code"]]
    assert np.array_equal(np.stack([one for one in columns["vector"] if one is not None]), found.vectors)
    strange = replace(found, rows=[Row("/a\udc80.mp4", None, None, "", "missing", "/a\udc80.mp4: gone")])
    assert make_columns(strange)["path"] == ["/a\\udc80.mp4"]


# ---- search


def brute_force(vectors: np.ndarray, query: np.ndarray, k: int) -> list[int]:
    lengths = np.linalg.norm(vectors.astype(float), axis=1)
    products = vectors.astype(float) @ query.astype(float)
    cosines = np.where(lengths > 0, products / np.where(lengths > 0, lengths, 1), 0.0) / np.linalg.norm(query)
    return np.argsort(-cosines, kind="stable")[:k].tolist()


@pytest.mark.parametrize("block", [7, 2048])
@pytest.mark.parametrize("k", [1, 10, 300, 1000])
def test_search_is_a_sort_of_all_cosines(block: int, k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(embeddings, "BLOCK_ROWS", block)
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(300, 33)).astype(np.float32)
    vectors *= 10.0 ** rng.uniform(-3, 3, (300, 1)).astype(np.float32)
    vectors[17] = 0
    query = rng.normal(size=33).astype(np.float32)
    found = rank(vectors, query, k)
    assert [row for row, _ in found] == brute_force(vectors, query, k)
    assert all(abs(cosine) <= 1 + 1e-12 for _, cosine in found)


def test_equal_vectors_are_in_the_order_of_their_rows() -> None:
    rng = np.random.default_rng(1)
    one, other = rng.normal(size=(2, 129)).astype(np.float32)
    vectors = np.where((np.arange(5000) % 3 == 1)[:, None], one, other)
    found = rank(vectors, one, 2000)
    assert [row for row, _ in found] == [*range(1, 5000, 3), *(row for row in range(5000) if row % 3 != 1)][:2000]
    assert len({cosine for _, cosine in found}) == 2


def test_the_cosine_is_exact_and_has_no_length() -> None:
    rng = np.random.default_rng(2)
    vectors = rng.normal(size=(4, 384)).astype(np.float32)
    assert rank(vectors, vectors[2], 1) == [(2, pytest.approx(1, abs=1e-12))]
    assert rank(1000 * vectors, vectors[2], 4)[1][1] == pytest.approx(rank(vectors, vectors[2], 4)[1][1], abs=1e-7)
    assert measure(np.zeros((1, 384), np.float32), vectors[0])[0] == 0


@pytest.mark.parametrize("wrong", [np.zeros(5), np.full(5, np.nan), np.full(5, np.inf)])
def test_a_query_without_a_direction_is_refused(wrong: np.ndarray) -> None:
    with pytest.raises(ValueError, match="direction"):
        rank(np.ones((3, 5), np.float32), wrong, 1)


def test_wrong_vectors_and_numbers_are_refused() -> None:
    vectors = np.ones((3, 5), np.float32)
    with pytest.raises(ValueError, match=naming("k", 0)):
        rank(vectors, vectors[0], 0)
    vectors[2, 3] = np.nan
    with pytest.raises(ValueError, match=naming("vector 2")):
        rank(vectors, np.ones(5), 1)


def test_a_folder_is_searched_by_vector_and_by_clip(made: Path, data: Path) -> None:
    found = Embeddings.load(made, device="cpu")
    row = found.rows[4]
    by_vector = found.search(torch.from_numpy(found.vectors[4].copy()), k=3)
    assert by_vector[0] == (row.path, 0.0, 0.32, pytest.approx(1))
    assert found.search(found.vectors[4], k=3) == by_vector
    assert found.search(views(row.path, VIDEO)[0], k=3) == by_vector
    assert len(found.search(found.vectors[0], k=100)) == 9
    assert found.search(found.vectors[0])[0].path == str(data / "bright" / "0.mp4")
    for wrong in (np.ones(23), np.ones((2, 24)), torch.ones(3)):
        with pytest.raises(ValueError, match=naming(24, "(C, T, H, W)")):
            found.search(wrong)


def test_vectors_are_mapped_into_memory_and_not_copied(made: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = Embeddings.load(made, device="cpu")
    maps = Path("/proc/self/maps")
    if maps.exists():
        assert str((made / FILE).resolve()) in maps.read_text()
    address = found.vectors.__array_interface__["data"][0]
    found.search(found.vectors[0])
    assert found.vectors.__array_interface__["data"][0] == address


def test_a_clip_is_asked_of_the_model_that_made_the_vectors_alone(made: Path, tmp_path: Path) -> None:
    clip = torch.zeros(3, 4, 32, 32, dtype=torch.uint8)
    other = write_weights(tmp_path / "other", dim=48)
    with pytest.raises(ValueError, match=naming(made, other, "encoder", "--run")):
        Embeddings.load(made, run=other, device="cpu").search(clip)
    with pytest.raises(ValueError, match=naming(made, tmp_path / "gone", "--run")):
        Embeddings.load(made, run=tmp_path / "gone", device="cpu").search(clip)
    assert len(Embeddings.load(made, device="cpu").search(clip)) == 9


def test_the_name_is_public() -> None:
    assert tubelet.Embeddings is Embeddings
