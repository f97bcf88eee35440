"""Tables go to FiftyOne and Label Studio and come back the same; answers go with them; faults are told at once."""

import csv
import json
from fractions import Fraction
from pathlib import Path
from typing import Any
from xml.etree.ElementTree import fromstring

import numpy as np
import pytest
from media_files import write_numbered, write_sound
from small_sets import command, pictures, write_image

from tubelet.convert_labels import convert_labels, convert_labels_back
from tubelet.data.annotations.labelled_files import read_labelled_files
from tubelet.data.annotations.writing import FORMATS
from tubelet.data.problems import KINDS, DataProblems
from tubelet.data.table import Item, read_table, write_table
from tubelet.media.reader import index
from tubelet.predict.tables import SEGMENTS, write_segments
from tubelet.stream.outputs import SEGMENT
from tubelet.tasks.multilabel import MultiLabel

TICKS = [0, 40, 50, 160, 200, 330, 360, 400, 610, 640, 700, 720]  # ms: a variable frame rate
VIDEOS = ("day 1/é, 'x' & \"y\".mp4", "day 2/é, 'x' & \"y\".mp4", "#50%+1?.mp4", "vfr.mp4")
IMAGES, SOUNDS = ("a b/ü.png", "漢.png"), ("a b/ü.wav", "漢.wav")
LABELS = ('say "hi", then <go> & wait', "winken ✋", "=1+1", "rest")
SUFFIX = {"fiftyone": "", "label-studio": ".json"}


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of twelve frames, at 25 a second but for vfr.mp4, images, and sounds of half a second."""
    folder = tmp_path_factory.mktemp("work") / "films"
    for path in (*VIDEOS, *IMAGES, *SOUNDS):
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
    for path in VIDEOS[:-1]:
        write_numbered(folder / path, 12)
    write_numbered(folder / VIDEOS[-1], 12, ticks=TICKS, tick_seconds=Fraction(1, 1000))
    for path in IMAGES:
        write_image(folder / path, pictures(90, [1], frames=1)[0])
    for path in SOUNDS:
        write_sound(folder / path, np.zeros(8000), sample_rate=16000)
    return folder


def segments(films: Path, path: str) -> list[tuple[float, float]]:
    """Times that lie on borders of frames of a video, and any of a sound."""
    found = index(films / path)
    if found.kind == "sound":
        return [(0.0, 0.123456789), (0.1, 0.5)]
    times = [*found.times.tolist(), found.duration_seconds]
    return [(times[0], times[3]), (times[2], times[5]), (times[11], times[12])]


def labelled(films: Path, paths: tuple[str, ...], *, parts: bool) -> list[Item]:
    """A row for each file, or several: of each split and group."""
    about = [("train", "Anna, 2"), ("val", ""), ("test", "ö"), ("", "b")]
    items = []
    for number, (path, (split, group)) in enumerate(zip(paths, about)):
        times = segments(films, path) if parts else [(None, None)]
        items += [
            Item(path, LABELS[(number + place) % 4], *one, split=split, group=group) for place, one in enumerate(times)
        ]
    return items


def write(films: Path, items: list[Item], name: str = "ours.csv") -> Path:
    write_table(films / name, items)
    return films / name


def sent(table: Path, folder: Path, to: str, **how: Any) -> Path:
    out = folder / f"out{SUFFIX[to]}"
    convert_labels_back(table, out, to=to, show=False, **how)
    return out


def samples(out: Path) -> list[dict[str, Any]]:
    """What FiftyOne reads, by the names of the files."""
    return json.loads((out / "samples.json").read_text())["samples"]


def tasks(out: Path) -> list[dict[str, Any]]:
    return json.loads(out.read_text())


def rows_table(path: Path, *rows: tuple[Any, ...]) -> Path:
    with open(path, "w", newline="", encoding="utf-8") as file:
        csv.writer(file).writerows(rows)
    return path


# ---- there and back


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize(
    ("paths", "parts"),
    [(VIDEOS, False), (VIDEOS, True), (IMAGES, False), (SOUNDS, False), (SOUNDS, True)],
    ids=["clips", "segments", "images", "sounds", "segments of sounds"],
)
def test_what_comes_back_is_what_went(
    films: Path, tmp_path: Path, to: str, paths: tuple[str, ...], parts: bool
) -> None:
    items = labelled(films, paths, parts=parts)
    table = write(films, items)
    if to == "fiftyone" and parts and paths == SOUNDS:
        with pytest.raises(DataProblems, match=r"(?s)ü\.wav.*漢\.wav"):
            sent(table, tmp_path, to)
        return
    out = sent(table, tmp_path, to)
    back = films / "back.csv"
    made = convert_labels(out, back, videos=films, show=False)
    assert (made.format, made.segments, made.files) == (to, len(items), len(paths))
    found = read_table(back, root=films)
    assert found.problems == []
    if paths == VIDEOS:  # frames are the same, so times are, exactly
        assert found.items == items
    assert sorted(map(repr, found.items)) == sorted(map(repr, items))
    write_table(films / "again.csv", items)
    assert (films / "again.csv").read_bytes() == back.read_bytes()


@pytest.mark.parametrize("to", FORMATS)
def test_several_classes_at_once(films: Path, tmp_path: Path, to: str) -> None:
    items = [Item(VIDEOS[0], "a;b, c"), Item(VIDEOS[1], "a")]
    out = sent(write(films, items), tmp_path, to)
    convert_labels(out, films / "back.csv", videos=films, show=False)
    assert read_table(films / "back.csv", root=films, task=MultiLabel).items == items
    if to == "label-studio":
        assert fromstring(out.with_suffix(".xml").read_text()).findall("Choices")[0].get("choice") == "multiple"


@pytest.mark.parametrize("to", FORMATS)
def test_times_go_to_the_nearest_frame(films: Path, tmp_path: Path, to: str) -> None:
    items = [Item("vfr.mp4", "a", 0.03, 0.17), Item("vfr.mp4", "b", None, 0.001), Item("vfr.mp4", "c", 0.65, None)]
    out = sent(write(films, items), tmp_path, to)
    convert_labels(out, films / "back.csv", videos=films, show=False)
    end = index(films / "vfr.mp4").duration_seconds
    found = [(item.start_seconds, item.end_seconds) for item in read_table(films / "back.csv", root=films).items]
    expected = [(0.04, 0.16), (0.0, 0.04), (0.64, end)]
    np.testing.assert_allclose(np.array(found, float), np.array(expected), rtol=0, atol=1e-9)


@pytest.mark.parametrize("to", FORMATS)
def test_labels_of_whole_files_beside_segments_come_back_where_they_are_asked_for(
    films: Path, tmp_path: Path, to: str
) -> None:
    items = [Item("vfr.mp4", "good"), Item("vfr.mp4", "wave", 0.0, 0.04)]
    out = sent(write(films, items), tmp_path, to)
    made = convert_labels(out, films / "back.csv", videos=films, show=False)
    assert made.classes == {"wave": 1}
    assert any("whole" in note for note in made.notes)
    made = convert_labels(out, films / "back.csv", videos=films, tiers=["label", "segments"], show=False)
    assert made.classes == {"good": 1, "wave": 1}
    assert convert_labels(out, films / "back.csv", videos=films, tiers=["label"], show=False).classes == {"good": 1}


def test_frames_of_fiftyone_become_seconds_without_the_videos(films: Path, tmp_path: Path) -> None:
    items = [Item(VIDEOS[2], "a", 0.04, 0.2), Item(VIDEOS[2], "b", 0.2, 0.48)]
    out = sent(write(films, items), tmp_path, "fiftyone")
    made = convert_labels(out, tmp_path / "back.csv", show=False)
    assert any("frame rate" in note for note in made.notes)
    found = read_table(tmp_path / "back.csv", root=tmp_path).items
    assert [Path(item.path) for item in found] == [films / VIDEOS[2]] * 2
    times = [(item.start_seconds, item.end_seconds) for item in found]
    np.testing.assert_allclose(np.array(times, float), [[0.04, 0.2], [0.2, 0.48]], rtol=0, atol=1e-6)


def test_fiftyone_names_files_without_suffix(films: Path, tmp_path: Path) -> None:
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["a"], "labels": {"a b/ü": 0, "漢": "b"}}))
    with pytest.raises(DataProblems, match=r"(?s)ü.wav.*漢.wav"):  # or is it the sound?
        convert_labels(tmp_path / "labels.json", films / "pictures.csv", videos=films, show=False)
    (tmp_path / "labels.json").write_text(
        json.dumps({"classes": None, "labels": {"day 2/" + Path(VIDEOS[1]).stem: [{"label": "a", "support": [1, 3]}]}})
    )
    convert_labels(tmp_path / "labels.json", films / "day.csv", videos=films, show=False)
    (item,) = read_table(films / "day.csv", root=films).items
    assert (item.path, item.start_seconds) == (VIDEOS[1], 0.0)
    assert item.end_seconds == pytest.approx(0.12, abs=1e-9)


def test_fiftyone_names_images_without_suffix(tmp_path: Path) -> None:
    (tmp_path / "x").mkdir()
    write_image(tmp_path / "x" / "é.png", pictures(90, [1], frames=1)[0])
    (tmp_path / "labels.json").write_text(json.dumps({"classes": ["a"], "labels": {"é": 0}}))
    convert_labels(tmp_path / "labels.json", tmp_path / "out.csv", videos=tmp_path / "x", show=False)
    assert read_table(tmp_path / "out.csv", root=tmp_path).items == [Item("x/é.png", "a")]


# ---- what is written, by hand after the documentation of each program


def test_fiftyone_golden(films: Path, tmp_path: Path) -> None:
    table = rows_table(
        films / "g.csv", ("path", "label", "start", "end", "split"), ("vfr.mp4", "wave", 0.04, 0.2, "val")
    )
    out = sent(table, tmp_path, "fiftyone")
    found = index(films / "vfr.mp4")
    assert json.loads((out / "metadata.json").read_text()) == {"info": {"classes": ["wave"], "written_by": "tubelet"}}
    assert samples(out) == [
        {
            "filepath": (films / "vfr.mp4").as_posix(),
            "tags": ["val"],
            "metadata": {
                "_cls": "VideoMetadata",
                "frame_width": 80,
                "frame_height": 48,
                "total_frame_count": 12,
                "frame_rate": round(11 / 0.72, 6),
                "duration": found.duration_seconds,
            },
            "segments": {
                "_cls": "TemporalDetections",
                "detections": [{"_cls": "TemporalDetection", "label": "wave", "support": [2, 4]}],
            },
        }
    ]


def test_label_studio_golden(films: Path, tmp_path: Path) -> None:
    table = rows_table(
        films / "g.csv", ("path", "label", "start", "end", "group"), ("#50%+1?.mp4", 'a "b"', 0.04, 0.2, "x y")
    )
    out = sent(table, tmp_path, "label-studio")
    value = {"ranges": [{"start": 2, "end": 5}], "timelinelabels": ['a "b"']}
    region = {"id": "task1-label-1", "to_name": "video", "type": "timelinelabels", "from_name": "segments"}
    assert tasks(out) == [
        {
            "data": {"video": "/data/local-files/?d=films/%2350%25%2B1%3F.mp4", "fps": 25.0, "group": "x y"},
            "annotations": [{"result": [{**region, "value": value}]}],
        }
    ]
    assert out.with_suffix(".xml").read_text() == (
        "<View>\n"
        '  <Video name="video" value="$video" frameRate="$fps"/>\n'
        '  <TimelineLabels name="segments" toName="video">\n'
        "    <Label value='a \"b\"'/>\n"
        "  </TimelineLabels>\n"
        "</View>\n"
    )


@pytest.mark.parametrize(
    ("paths", "parts", "tags"),
    [
        (VIDEOS, False, ["Video", "Choices"]),
        (IMAGES, False, ["Image", "Choices"]),
        (SOUNDS, False, ["Audio", "Choices"]),
        (SOUNDS, True, ["Audio", "Labels"]),
    ],
)
def test_the_configuration_of_label_studio_fits_its_tasks(
    films: Path, tmp_path: Path, paths: tuple[str, ...], parts: bool, tags: list[str]
) -> None:
    out = sent(write(films, labelled(films, paths, parts=parts)), tmp_path, "label-studio")
    view = fromstring(out.with_suffix(".xml").read_text())
    assert [child.tag for child in view] == tags
    medium, control = view
    assert control.get("toName") == medium.get("name")
    known = {child.get("value") for child in control}
    for task in tasks(out):
        assert task["data"][str(medium.get("value"))[1:]]
        for result in task["annotations"][0]["result"]:
            assert (result["from_name"], result["to_name"]) == (control.get("name"), medium.get("name"))
            assert result["type"] == control.tag.lower()
            assert {*result["value"][result["type"]]} <= known
    ids = [result["id"] for task in tasks(out) for result in task["annotations"][0]["result"]]
    assert len({*ids}) == len(ids)


# ---- answers


def test_predictions_of_a_run_stand_beside_its_labels(films: Path, tmp_path: Path) -> None:
    header = ("path", "label", "predicted", "probability", "status", "code", "seconds", "known", "p:'=1+1", "p:rest")
    table = rows_table(
        tmp_path / "predictions.csv",
        header,
        ("#50%+1?.mp4", "rest", "'=1+1", "0.750000", "ok", "ok", "0.480", "yes", "0.75", "0.25"),
        ("vfr.mp4", "rest", "rest", "0.500000", "ok", "ok", "0.8", "no", "0.5", "0.5"),
        (VIDEOS[0], "rest", "", "", "it is empty", "empty", "", "", "", ""),
    )
    first, second, third = samples(out := sent(table, tmp_path, "fiftyone", videos=films))
    assert first["label"] == {"_cls": "Classification", "label": "rest"}
    assert first["predicted"] == {"_cls": "Classification", "label": "=1+1", "confidence": 0.75}
    assert not {"predicted"} & ({*second} | {*third})
    found = read_labelled_files(table, videos=films)
    assert sum(found.left_out.values()) == 2
    made = convert_labels(out, tmp_path / "back.csv", show=False)
    assert made.classes == {"rest": 3}  # and nothing that a model said
    one, two, _ = tasks(sent(table, tmp_path, "label-studio", videos=films))
    assert one["annotations"][0]["result"][0]["value"] == {"choices": ["rest"]}
    (prediction,) = one["predictions"]
    assert (prediction["model_version"], prediction["score"]) == ("tubelet", 0.75)
    (result,) = prediction["result"]
    assert (result["type"], result["value"], result["score"]) == ("choices", {"choices": ["=1+1"]}, 0.75)
    assert "predictions" not in two


def test_answers_of_several_classes_and_numbers(films: Path, tmp_path: Path) -> None:
    header = ("path", "predicted", "probability", "status", "p:a", "p:b")
    table = rows_table(films / "p.csv", header, ("vfr.mp4", "a;b", "", "ok", "0.75", "0.5"))
    (sample,) = samples(sent(table, tmp_path, "fiftyone"))
    found = sample["predicted"]["classifications"]
    assert [(one["label"], one["confidence"]) for one in found] == [("a", 0.75), ("b", 0.5)]
    (task,) = tasks(sent(table, tmp_path, "label-studio"))
    assert task["predictions"][0]["score"] == 0.625
    assert task["predictions"][0]["result"][0]["value"] == {"choices": ["a", "b"]}
    rows_table(films / "p.csv", ("path", "predicted", "probability", "value:speed"), ("vfr.mp4", "1.5", "", "1.5"))
    (tmp_path / "numbers").mkdir()
    (sample,) = samples(sent(films / "p.csv", tmp_path / "numbers", "fiftyone"))
    assert sample["predicted"] == {"_cls": "Classification", "label": "1.5"}


def test_segments_that_were_found(films: Path, tmp_path: Path) -> None:
    found = [("vfr.mp4", 0.04, 0.2, "@home", 0.75), ("#50%+1?.mp4", 0.0, 0.333, "rest", 0.5)]
    write_segments(found, films / "found.csv")
    assert (films / "found.csv").read_text().startswith(",".join(SEGMENTS))
    first, second = samples(sent(films / "found.csv", tmp_path, "fiftyone"))
    (detection,) = first["predicted_segments"]["detections"]
    assert detection == {"_cls": "TemporalDetection", "label": "@home", "confidence": 0.75, "support": [2, 4]}
    assert second["predicted_segments"]["detections"][0]["support"] == [1, 8]
    task, _ = tasks(sent(films / "found.csv", tmp_path, "label-studio"))
    (prediction,) = task["predictions"]
    assert "annotations" not in task
    assert prediction["result"][0]["value"] == {"ranges": [{"start": 2, "end": 4}], "timelinelabels": ["@home"]}
    assert prediction["result"][0]["score"] == prediction["score"] == 0.75


@pytest.mark.parametrize("to", FORMATS)
def test_what_stream_writes_needs_the_video(films: Path, tmp_path: Path, to: str) -> None:
    table = rows_table(tmp_path / "segments.csv", SEGMENT, ("0.000", "0.080", "wave", "0.900000"))
    with pytest.raises(ValueError, match="--videos"):
        sent(table, tmp_path, to)
    with pytest.raises(ValueError, match="--videos"):
        sent(table, tmp_path, to, videos=films)
    out = sent(table, tmp_path, to, videos=films / VIDEOS[0])
    if to == "fiftyone":
        assert samples(out)[0]["filepath"] == (films / VIDEOS[0]).as_posix()
        assert samples(out)[0]["predicted_segments"]["detections"][0]["support"] == [1, 2]
    else:
        assert tasks(out)[0]["predictions"][0]["result"][0]["value"]["ranges"] == [{"start": 1, "end": 2}]


def test_parts_of_files_in_predictions(films: Path, tmp_path: Path) -> None:
    table = rows_table(
        films / "p.csv", ("path", "label", "predicted", "probability"), ("vfr.mp4#t=0.04,0.2", "a", "b", "0.5")
    )
    (sample,) = samples(sent(table, tmp_path, "fiftyone"))
    assert sample["segments"]["detections"][0]["support"] == [2, 4]
    assert sample["predicted_segments"]["detections"][0]["support"] == [2, 4]


def test_a_variable_frame_rate_is_noted(films: Path, tmp_path: Path) -> None:
    even, uneven = (write(films, [Item(path, "a", 0.0, 0.2)], f"{path[0]}.csv") for path in (VIDEOS[2], "vfr.mp4"))
    assert convert_labels_back(even, tmp_path / "a", to="fiftyone", show=False).notes == ()
    made = convert_labels_back(uneven, tmp_path / "b", to="fiftyone", show=False)
    assert ["variable" in note for note in made.notes] == [True]
    assert (made.files, made.labels, made.answers) == (1, 1, 0)


# ---- faults

HEADER = ("path", "label", "start", "end", "split", "group")
FAULTS: dict[str, tuple[list[tuple[str, ...]], list[str]]] = {
    "of the table": (
        [HEADER, ("no.mp4", "a", "", "", "", ""), ("vfr.mp4", "", "3", "2", "moon", "")],
        ["missing-file", "times", "split", "empty-label"],
    ),
    "of times": (
        [HEADER, ("vfr.mp4", "a", "9", "10", "", ""), ("vfr.mp4", "a", "0.8", "", "", "")],
        ["times", "times"],
    ),
    "a part of an image": ([HEADER, ("漢.png", "a", "0", "1", "", "")], ["times"]),
    "two labels": ([HEADER, ("vfr.mp4", "a", "", "", "", ""), ("vfr.mp4", "b", "", "", "", "")], ["two-labels"]),
    "two splits": (
        [HEADER, ("vfr.mp4", "a", "0", "0.1", "train", ""), ("vfr.mp4", "b", "0", "0.1", "val", "")],
        ["split"],
    ),
    "two groups": (
        [HEADER, ("vfr.mp4", "a", "0", "0.1", "", "x"), ("vfr.mp4", "b", "0", "0.1", "", "y")],
        ["split"],
    ),
    "two kinds": ([HEADER, ("vfr.mp4", "a", "", "", "", ""), ("漢.png", "b", "", "", "", "")], ["mixed-kinds"]),
    "a control": ([HEADER, ("vfr.mp4", "a\x1bb", "", "", "", "")], ["class-name"]),
    "answers": (
        [
            ("path", "start", "end", "label", "score"),
            ("no.mp4", "0", "1", "a", "1"),
            ("vfr.mp4", "1", "x", "a", "1"),
            ("vfr.mp4", "0", "1", "", "1"),
            ("vfr.mp4", "0"),
        ],
        ["missing-file", "times", "empty-label", "cells"],
    ),
    "predictions": ([("path", "predicted"), ("no.mp4", "a"), ("vfr.mp4",)], ["missing-file", "cells"]),
    "nothing": ([("path", "predicted")], ["layout"]),
}


@pytest.mark.parametrize("to", FORMATS)
@pytest.mark.parametrize("name", FAULTS)
def test_faults_are_told_at_once_and_nothing_is_written(films: Path, tmp_path: Path, to: str, name: str) -> None:
    rows, kinds = FAULTS[name]
    table = rows_table(films / "faulty.csv", *rows)
    with pytest.raises(DataProblems) as caught:
        sent(table, tmp_path, to)
    assert sorted(problem.kind for problem in caught.value.problems) == sorted(kinds)
    assert {*kinds} <= {*KINDS}
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("to", FORMATS)
def test_a_video_that_cannot_be_read_is_told_with_its_place(tmp_path: Path, to: str) -> None:
    (tmp_path / "a.mp4").write_bytes(b"nothing")
    table = write(tmp_path, [Item("a.mp4", "a", 0.0, 1.0)])
    with pytest.raises(DataProblems) as caught:
        sent(table, tmp_path, to)
    (problem,) = caught.value.problems
    assert problem.kind == "unreadable"
    assert problem.where.startswith("ours.csv a.mp4#t=0,1")


@pytest.mark.parametrize("to", FORMATS)
def test_nothing_that_is_there_is_replaced(films: Path, tmp_path: Path, to: str) -> None:
    table = write(films, [Item("vfr.mp4", "a")])
    out = sent(table, tmp_path, to)
    before = {path: path.read_bytes() for path in tmp_path.rglob("*") if path.is_file()}
    with pytest.raises(ValueError, match="out"):
        sent(table, tmp_path, to)
    if to == "label-studio":
        out.unlink()
        with pytest.raises(ValueError, match=r"out\.xml"):  # the other of the two
            sent(table, tmp_path, to)
        with pytest.raises(ValueError, match=r"\.json"):
            convert_labels_back(table, tmp_path / "other", to=to, show=False)
    with pytest.raises(ValueError, match="nowhere"):
        convert_labels_back(table, tmp_path / "nowhere" / f"x{SUFFIX[to]}", to=to, show=False)
    with pytest.raises(ValueError, match=r"gone\.csv"):
        convert_labels_back(films / "gone.csv", tmp_path / f"x{SUFFIX[to]}", to=to, show=False)
    with pytest.raises(ValueError, match="--videos"):
        convert_labels_back(table, tmp_path / f"x{SUFFIX[to]}", to=to, videos=table, show=False)
    assert all(path.read_bytes() == before[path] for path in before if path.exists())


@pytest.mark.parametrize(
    ("content", "kinds"),
    [
        ({"samples": [{"filepath": "a.mp4", "x": {"_cls": "Classification", "label": ""}}]}, ["empty-label"]),
        ({"samples": [{"filepath": "a.mp4"}, {"x": {"_cls": "Classification", "label": "a"}}]}, ["empty-path"]),
        ({"samples": [{"filepath": "a.mp4", "tags": ["train", "test"]}]}, ["split"]),
        (
            {"samples": [{"filepath": "a", "x": {"_cls": "TemporalDetection", "label": "a", "support": [3, 1]}}]},
            ["times"],
        ),
        ({"samples": [{"filepath": "a", "x": {"_cls": "TemporalDetection", "label": "a"}}]}, ["times"]),
        (
            {"samples": [{"filepath": "a", "x": {"_cls": "TemporalDetection", "label": "a", "support": [1, 3]}}]},
            ["times"],  # no frame rate, and no videos
        ),
        (
            {"classes": ["a"], "labels": {"v": 1, "w": [{"label": "a", "timestamps": [0, "x:1"]}]}},
            ["empty-label", "times"],
        ),
    ],
)
def test_faults_of_fiftyone(tmp_path: Path, content: dict[str, Any], kinds: list[str]) -> None:
    (tmp_path / "x.json").write_text(json.dumps(content))
    with pytest.raises(DataProblems) as caught:
        convert_labels(tmp_path / "x.json", tmp_path / "out.csv", show=False)
    assert [problem.kind for problem in caught.value.problems] == kinds
    assert not (tmp_path / "out.csv").exists()


def test_a_model_s_answers_in_fiftyone_are_read_where_they_are_asked_for(films: Path, tmp_path: Path) -> None:
    write_segments([("vfr.mp4", 0.04, 0.2, "wave", 0.75)], films / "found.csv")
    out = sent(films / "found.csv", tmp_path, "fiftyone")
    with pytest.raises(DataProblems, match="model"):
        convert_labels(out, tmp_path / "back.csv", videos=films, show=False)
    made = convert_labels(out, tmp_path / "back.csv", videos=films, tiers=["predicted_segments"], show=False)
    assert made.classes == {"wave": 1}


# ---- the command


def test_the_command(films: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    table, out = write(films, labelled(films, VIDEOS, parts=True)), tmp_path / "tasks.json"
    assert command("convert-labels", table, out, "--to", "label-studio", "--json") == 0
    shown = capsys.readouterr()
    made = json.loads(shown.out)
    assert (made["format"], made["files"], made["labels"], made["answers"]) == ("label-studio", 4, 12, 0)
    assert f"LOCAL_FILES_DOCUMENT_ROOT={films.parent}" in made["advice"]
    assert f"LOCAL_FILES_DOCUMENT_ROOT={films.parent}" in shown.err
    assert command("convert-labels", table, tmp_path / "x.json", "--to", "praat") == 2
    assert "'praat'" in capsys.readouterr().err
    for flags in (("--tier", "a"), ("--from", "elan")):
        assert command("convert-labels", table, tmp_path / "x.json", "--to", "fiftyone", *flags) == 2
        assert flags[0] in capsys.readouterr().err
    assert command("convert-labels", table, out, "--to", "label-studio") == 2
    assert str(out) in capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} == {"tasks.json", "tasks.xml"}
