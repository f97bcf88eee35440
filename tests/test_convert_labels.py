"""Labels of other programs become a table of segments in seconds; all that is wrong with them is told at once."""

import csv
import io
import json
from dataclasses import replace
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from media_files import write_numbered
from small_sets import command

from tubelet.convert_labels import convert_labels
from tubelet.data.annotations.reading import FORMATS, read_labels
from tubelet.data.annotations.videos import Videos, path_parts
from tubelet.data.problems import KINDS, DataProblems
from tubelet.data.table import Item, read_table
from tubelet.media.reader import index

TICKS = [0, 40, 50, 160, 200, 330, 360, 400, 610, 640, 700, 720]  # ms: a variable frame rate
ACTIVITYNET = {
    "version": "VERSION 1.3",
    "database": {
        "sJ1-abc": {
            "subset": "training",
            "duration": 83.2,
            "annotations": [
                {"label": "Weitsprung – ü", "segment": [9.1, 20.4]},
                {"label": "Rest", "segment": [0, 9.1]},
            ],
        },
        "b2": {"subset": "validation", "duration": 5, "annotations": [{"label": "Rest", "segment": [1, 4.5]}]},
        "c3": {"subset": "testing", "duration": 5, "annotations": []},
    },
}
ELAN = """<?xml version="1.0" encoding="UTF-8"?>
<ANNOTATION_DOCUMENT AUTHOR="" FORMAT="3.0" VERSION="3.0">
  <HEADER MEDIA_FILE="" TIME_UNITS="milliseconds">
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///C:/day/a.wav" MIME_TYPE="audio/x-wav" RELATIVE_MEDIA_URL="./a.wav"/>
    <MEDIA_DESCRIPTOR MEDIA_URL="file:///a.mp4" MIME_TYPE="video/mp4" RELATIVE_MEDIA_URL="./a.mp4" TIME_ORIGIN="500"/>
  </HEADER>
  <TIME_ORDER>
    <TIME_SLOT TIME_SLOT_ID="ts1" TIME_VALUE="0"/><TIME_SLOT TIME_SLOT_ID="ts2" TIME_VALUE="1250"/>
    <TIME_SLOT TIME_SLOT_ID="ts3" TIME_VALUE="2000"/><TIME_SLOT TIME_SLOT_ID="ts4"/>
  </TIME_ORDER>
  <TIER LINGUISTIC_TYPE_REF="t" TIER_ID="action">
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a1" TIME_SLOT_REF1="ts1" TIME_SLOT_REF2="ts2">
      <ANNOTATION_VALUE>winken ✋</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
    <ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a2" TIME_SLOT_REF1="ts2" TIME_SLOT_REF2="ts3">
      <ANNOTATION_VALUE>rest</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="h" PARENT_REF="action" TIER_ID="hand">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a3" ANNOTATION_REF="a1">
      <ANNOTATION_VALUE>left</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
  <TIER LINGUISTIC_TYPE_REF="h" PARENT_REF="hand" TIER_ID="finger">
    <ANNOTATION><REF_ANNOTATION ANNOTATION_ID="a4" ANNOTATION_REF="a3">
      <ANNOTATION_VALUE>index</ANNOTATION_VALUE></REF_ANNOTATION></ANNOTATION>
  </TIER>
</ANNOTATION_DOCUMENT>
"""
BORIS: dict[str, Any] = {
    "time_format": "hh:mm:ss",
    "project_format_version": "7.0",
    "behaviors_conf": {
        "0": {"code": "eat", "type": "State event"},
        "1": {"code": "peck", "type": "Point event"},
        "2": {"code": "rest", "type": "State event with coding map"},
    },
    "observations": {
        "day 1": {
            "type": "MEDIA",
            "time offset": 10.0,
            "file": {"1": ["videos/é1.mp4", "videos/2.mp4"], "2": ["side.mp4"]},
            "media_info": {"length": {"videos/é1.mp4": 60.1, "videos/2.mp4": 30.0}},
            "events": [
                [11.5, "Anna", "eat", "", ""],
                [12.0, "Bert", "eat", "", ""],
                [12.25, "", "peck", "", ""],
                [13.0, "Anna", "eat", "", ""],
                [60.0, "", "rest", "None", ""],
                [80.3, "", "rest", "None", ""],
                [90.0, "Bert", "eat", "", ""],
            ],
        },
        "live": {"type": "LIVE", "file": [], "time offset": 0.0, "events": [[1.0, "", "eat", "", ""]]},
    },
}
AGGREGATED = """Observation id\tObservation type\tSource\tTime offset (s)\tMedia duration (s)\tSubject\tBehavior\t\
Behavior type\tStart (s)\tStop (s)\tDuration (s)\tMedia file name
day 1\tMedia file\tplayer #1:é1.mp4;2.mp4|player #2:side.mp4\t10.0\t60.100;30.000|90.000\tAnna\teat\t\
STATE\t11.500\t13.000\t1.500\té1.mp4
day 1\tMedia file\tplayer #1:é1.mp4;2.mp4|player #2:side.mp4\t10.0\t60.100;30.000|90.000\t\tpeck\t\
POINT\t12.250\t12.250\tNA\té1.mp4
day 1\tMedia file\tplayer #1:é1.mp4;2.mp4|player #2:side.mp4\t10.0\t60.100;30.000|90.000\t\trest\t\
STATE\t80.300\t90.000\t9.7\t2.mp4
live\tLive observation\tNA\t0.0\tNA\t\teat\tSTATE\t1.000\t2.000\t1.000\tNA
"""
OLD_AGGREGATED = """Observation id,Media file,Total length,FPS,Subject,Behavior,Behavior type,Start (s),Stop (s)
o1,a.mp4,60,25,Anna,eat,STATE,1.5,3
o1,a.mp4,60,25,,peck,POINT,2.25,2.25
o2,b.mp4,60,25,Anna,eat,STATE,1,2
"""
VIA: dict[str, Any] = {
    "project": {"pid": "x", "vid_list": ["1"]},
    "attribute": {
        "1": {"aname": "action", "anchor_id": "FILE1_Z2_XY0", "type": 4, "options": {"0": "wave", "1": "rest"}},
        "2": {"aname": "who", "anchor_id": "FILE1_Z2_XY0", "type": 1, "options": {}},
        "3": {"aname": "limbs", "anchor_id": "FILE1_Z2_XY0", "type": 2, "options": {"l": "left", "r": "right"}},
    },
    "file": {"7": {"fid": "7", "fname": "Tag 1.mp4", "type": 4, "loc": 1, "src": ""}},
    "view": {"1": {"fid_list": ["7"]}},
    "metadata": {
        "1_a": {"vid": "1", "flg": 0, "z": [1.25, 3.5], "xy": [], "av": {"1": "0", "2": "Zoë", "3": ""}},
        "1_b": {"vid": "1", "flg": 0, "z": [4, 5], "xy": [], "av": {"3": "l,r"}},
        "1_c": {"vid": "1", "flg": 0, "z": [4.2], "xy": [2, 1, 1, 5, 5], "av": {"1": "0"}},
    },
}
VIA_CSV = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# SHAPE_ID = {"POINT":1,"RECTANGLE":2}
# ATTRIBUTE = {"1":{"aname":"action","type":4,"options":{"0":"wave","1":"rest"}},"2":{"aname":"who","type":1}}
# CSV_HEADER = metadata_id,file_list,flags,temporal_coordinates,spatial_coordinates,metadata
"1_a","[""Tag 1.mp4""]",0,"[1.25,3.5]","[]","{""1"":""0"",""2"":""Zoë""}"
"1_b","[""Tag 1.mp4""]",0,"[4.2]","[2,1,1,5,5]","{""1"":""0""}"
"""
VIA_SEGMENTS_CSV = """# Exported using VGG Image Annotator (http://www.robots.ox.ac.uk/~vgg/software/via)
# CSV_HEADER = metadata_id,file_list,temporal_segment_start,temporal_segment_end,metadata
"1_a","[""Tag 1.mp4""]",1.25,3.5,"{""TEMPORAL-SEGMENTS"":""wave""}"
"1_b","[""Tag 1.mp4""]",4.2,undefined,"{""who"":""0""}"
"""
CVAT = """<?xml version="1.0" encoding="utf-8"?>
<annotations><version>1.1</version>
  <meta><task><id>3</id><name>t</name><size>12</size><mode>interpolation</mode><subset>Train</subset>
    <source>vfr.mp4</source></task></meta>
  <track id="0" label="jump" source="manual">
    <box frame="2" keyframe="1" outside="0" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5"/>
    <box frame="3" keyframe="0" outside="0" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5"/>
    <box frame="4" keyframe="1" outside="1" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5"/>
    <box frame="8" keyframe="1" outside="0" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5"/>
    <box frame="11" keyframe="1" outside="0" occluded="0" xtl="1" ytl="1" xbr="5" ybr="5"/>
  </track>
</annotations>
"""
CVAT_TAGS = """<annotations><version>1.1</version>
  <meta><task><id>3</id><mode>interpolation</mode><frame_filter>step=2</frame_filter><source>vfr.mp4</source></task></meta>
  <image id="0" name="frame_000000"><tag label="jump"/><box label="dog" xtl="1"/></image>
  <image id="2" name="frame_000002"><tag label="jump"/><tag label="smile"/></image>
  <image id="4" name="frame_000004"/>
  <image id="6" name="frame_000006"><tag label="jump"/></image>
</annotations>
"""
CVAT_PROJECT = """<annotations><version>1.1</version>
  <meta><project><tasks>
    <task><id>3</id><subset>Validation</subset><source>vfr.mp4</source></task>
    <task><id>4</id><subset>Camera 2</subset><source>even.mp4</source></task></tasks></project></meta>
  <track id="0" label="a" task_id="3"><points frame="1" outside="0"/></track>
  <track id="1" label="b" task_id="4">
    <skeleton frame="5"><points label="p" outside="1"/><points label="q" outside="0"/></skeleton>
    <skeleton frame="7"><points label="p" outside="1"/><points label="q" outside="1"/></skeleton></track>
</annotations>
"""
LABEL_STUDIO = [
    {
        "id": 1,
        "data": {"video": "/data/upload/3/0a1b2c3d-vfr.mp4", "title": "x"},
        "annotations": [
            {
                "was_cancelled": False,
                "result": [
                    {
                        "id": "r1",
                        "type": "timelinelabels",
                        "value": {"ranges": [{"start": 3, "end": 5}], "timelinelabels": ["wave", "left"]},
                    },
                    {
                        "id": "r2",
                        "type": "timelinelabels",
                        "value": {"ranges": [{"start": 12, "end": 12}], "timelinelabels": ["rest"]},
                    },
                    {"id": "r3", "type": "choices", "value": {"choices": ["good"]}},
                    {
                        "id": "r5",
                        "type": "timeserieslabels",
                        "value": {"start": 3, "end": 9, "timeserieslabels": ["no"]},
                    },
                    {"id": "r4", "type": "labels", "value": {"start": 0.1, "end": 0.25, "labels": ["Rede"]}},
                ],
            },
            {"was_cancelled": True, "result": [{"type": "labels", "value": {"start": 0, "end": 1, "labels": ["no"]}}]},
        ],
        "predictions": [{"result": [{"type": "labels", "value": {"start": 0, "end": 1, "labels": ["no"]}}]}],
    }
]
FIFTYONE: dict[str, Any] = {
    "samples": [
        {
            "_id": {"$oid": "6569e1f1"},
            "filepath": "/data/é 1.mp4",
            "tags": ["mine", "train"],
            "_media_type": "video",
            "metadata": {"_cls": "VideoMetadata", "frame_rate": 25.0, "total_frame_count": 75},
            "ground_truth": {
                "_cls": "TemporalDetections",
                "detections": [
                    {"_cls": "TemporalDetection", "tags": [], "label": "wave", "confidence": None, "support": [1, 25]},
                    {"_cls": "TemporalDetection", "label": "rest", "support": [61, 62]},
                ],
            },
            "model": {
                "_cls": "TemporalDetections",
                "detections": [{"_cls": "TemporalDetection", "label": "no", "confidence": 0.5, "support": [1, 2]}],
            },
            "quality": {"_cls": "Classification", "label": "good"},
            "boxes": {"_cls": "Detections", "detections": []},
        },
        {"filepath": "/data/b.mp4", "tags": [], "ground_truth": None},
    ]
}
FIFTYONE_LABELS: dict[str, Any] = {
    "classes": ["rest", "wave"],
    "labels": {
        "day/a": [{"label": 0, "timestamps": [0.5, "00:01:02.5"]}, {"label": "a, b", "timestamps": [1, 2]}],
        "day/b": None,
    },
}
FIFTYONE_IMAGES: dict[str, Any] = {"classes": ["rest", "wave"], "labels": {"a": 1, "b": ["x", {"label": 0}]}}
GOOGLE = """training,gs://bucket/day/a.mp4,wave,1.2,3.4
test,gs://bucket/b.mp4,rest,0,inf
UNASSIGNED,gs://bucket/c.mp4,"a, b",1:00,2
gs://bucket/d.mp4,wave,5,6.5
validation,gs://bucket/e.mp4
"""


def written(path: Path, content: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(content if isinstance(content, str) else json.dumps(content, ensure_ascii=False), encoding="utf-8")
    return path


def rows(table: Path) -> list[tuple[str, ...]]:
    """(path, label, start, end, split) of each line of a table that was written."""
    header, *lines = csv.reader(io.StringIO(table.read_text(encoding="utf-8")))
    assert header[:5] == ["path", "label", "start", "end", "split"]
    return [tuple(line[:5]) for line in lines]


def converted(source: Path, **how: Any) -> list[tuple[str, ...]]:
    out = source.parent / "out.csv"
    convert_labels(source, out, show=False, **how)
    return rows(out)


def problems(source: Path, **how: Any) -> list[tuple[str, str]]:
    """Kind and place of all that is wrong; nothing is written then."""
    out = source.parent / "out.csv"
    with pytest.raises(DataProblems) as caught:
        convert_labels(source, out, show=False, **how)
    assert not out.exists()
    assert {problem.kind for problem in caught.value.problems} <= {*KINDS}
    assert all(
        str(problem) in str(caught.value) or len(caught.value.problems) == 1 for problem in caught.value.problems
    )
    return [(problem.kind, problem.where) for problem in caught.value.problems]


@pytest.fixture(scope="module")
def videos(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Videos of twelve frames: vfr.mp4 at TICKS, even.mp4 at 25 a second."""
    folder = tmp_path_factory.mktemp("videos")
    write_numbered(folder / "vfr.mp4", 12, ticks=TICKS, tick_seconds=Fraction(1, 1000))
    write_numbered(folder / "even.mp4", 12)
    return folder


# ---- each format

SECONDS: dict[str, tuple[str, Any, list[tuple[str, ...]]]] = {
    "activitynet": (
        "activity_net.v1-3.min.json",
        ACTIVITYNET,
        [
            ("sJ1-abc", "Weitsprung – ü", "9.1", "20.4", "train"),
            ("sJ1-abc", "Rest", "0.0", "9.1", "train"),
            ("b2", "Rest", "1.0", "4.5", "val"),
        ],
    ),
    "thumos14": (
        "Diving_val.txt",
        "video_validation_0000266  72.8 76.4\n\nvideo_validation_0000681 44 50.9 \n",
        [
            ("video_validation_0000266", "Diving", "72.8", "76.4", "train"),
            ("video_validation_0000681", "Diving", "44.0", "50.9", "train"),
        ],
    ),
    "elan": (
        "a.eaf",
        ELAN,
        [
            ("a.mp4", "winken ✋", "0.5", "1.75", ""),
            ("a.mp4", "rest", "1.75", "2.5", ""),
            ("a.mp4", "left", "0.5", "1.75", ""),
            ("a.mp4", "index", "0.5", "1.75", ""),
        ],
    ),
    "boris": (
        "p.boris",
        BORIS,
        [
            ("videos/é1.mp4", "eat", "1.5", "3.0", ""),
            ("videos/é1.mp4", "rest", "50.0", "60.1", ""),  # goes on in the next file
            ("videos/é1.mp4", "eat", "2.0", "60.1", ""),
            ("videos/2.mp4", "rest", "0.0", "10.2", ""),
            ("videos/2.mp4", "eat", "0.0", "19.9", ""),
        ],
    ),
    "boris, its table": (
        "p.tsv",
        AGGREGATED,
        [
            ("é1.mp4", "eat", "1.5", "3.0", ""),
            ("2.mp4", "rest", "10.2", "19.9", ""),
        ],
    ),
    "boris, an old table": (
        "p.csv",
        OLD_AGGREGATED,
        [
            ("a.mp4", "eat", "1.5", "3.0", ""),
            ("b.mp4", "eat", "1.0", "2.0", ""),
        ],
    ),
    "via": (
        "v.json",
        VIA,
        [
            ("Tag 1.mp4", "wave", "1.25", "3.5", ""),
            ("Tag 1.mp4", "Zoë", "1.25", "3.5", ""),
            ("Tag 1.mp4", "left", "4.0", "5.0", ""),
            ("Tag 1.mp4", "right", "4.0", "5.0", ""),
        ],
    ),
    "via, its table": (
        "v.csv",
        VIA_CSV,
        [
            ("Tag 1.mp4", "wave", "1.25", "3.5", ""),
            ("Tag 1.mp4", "Zoë", "1.25", "3.5", ""),
        ],
    ),
    "via, its table of segments": ("v.csv", VIA_SEGMENTS_CSV, [("Tag 1.mp4", "wave", "1.25", "3.5", "")]),
    "fiftyone": (
        "samples.json",
        FIFTYONE,
        [("/data/é 1.mp4", "wave", "0.0", "1.0", "train"), ("/data/é 1.mp4", "rest", "2.4", "2.48", "train")],
    ),
    "fiftyone, its labels": (
        "labels.json",
        FIFTYONE_LABELS,
        [("day/a", "rest", "0.5", "62.5", ""), ("day/a", "a, b", "1.0", "2.0", "")],
    ),
    "fiftyone, its images": ("labels.json", FIFTYONE_IMAGES, [("a", "wave", "", "", ""), ("b", "x;rest", "", "", "")]),
    "google": (
        "g.csv",
        GOOGLE.replace("1:00", "1"),
        [
            ("gs://bucket/day/a.mp4", "wave", "1.2", "3.4", "train"),
            ("gs://bucket/b.mp4", "rest", "0.0", "", "test"),
            ("gs://bucket/c.mp4", "a, b", "1.0", "2.0", ""),
            ("gs://bucket/d.mp4", "wave", "5.0", "6.5", ""),
        ],
    ),
}


@pytest.mark.parametrize("name", SECONDS)
def test_segments_in_seconds(tmp_path: Path, name: str) -> None:
    file, content, expected = SECONDS[name]
    source = written(tmp_path / file, content)
    assert converted(source) == expected
    assert converted(source, from_format=name.split(",")[0]) == expected
    made = convert_labels(source, tmp_path / "out.csv", show=False)
    assert (made.format, made.segments, made.files) == (
        name.split(",")[0],
        len(expected),
        len({row[0] for row in expected}),
    )
    assert made.classes == {label: sum(row[1] == label for row in expected) for label in {row[1] for row in expected}}
    assert made.seconds == pytest.approx(sum(float(row[3]) - float(row[2]) for row in expected if row[3]))


def test_every_format_is_here() -> None:
    assert {name.split(",")[0] for name in SECONDS} | {"cvat", "label-studio"} == {*FORMATS}


def seconds_of(first: int, after: int, end: float) -> tuple[str, str]:
    times = [*(tick / 1000 for tick in TICKS), end]
    return repr(times[first]), repr(times[after])


@pytest.mark.parametrize(
    ("file", "content", "expected"),
    [
        ("t.xml", CVAT, [("jump", 2, 4, "train"), ("jump", 8, 12, "train")]),
        ("t.xml", CVAT_TAGS, [("jump", 0, 3, ""), ("jump", 6, 7, ""), ("smile", 2, 3, "")]),
        (
            "t.json",
            LABEL_STUDIO,
            [("wave", 2, 5, ""), ("left", 2, 5, ""), ("rest", 11, 12, ""), ("Rede", 0.1, 0.25, "")],
        ),
    ],
    ids=["cvat", "cvat, tags", "label-studio"],
)
def test_frames_become_seconds_by_the_times_of_the_video(
    tmp_path: Path, videos: Path, file: str, content: Any, expected: list[tuple[str, Any, Any, str]]
) -> None:
    source = written(tmp_path / file, content)
    end = index(videos / "vfr.mp4").duration_seconds
    np.testing.assert_allclose(index(videos / "vfr.mp4").times, np.array(TICKS) / 1000, rtol=0, atol=1e-9)
    for path, label, start, stop, split in converted(source, videos=videos):
        name, first, after, half = expected.pop(0)
        begin, last = (first, after) if isinstance(first, float) else map(float, seconds_of(first, after, end))
        assert (path, label, split) == ((videos / "vfr.mp4").as_posix(), name, half)
        assert (float(start), float(stop)) == pytest.approx((begin, last), abs=1e-9)
    assert expected == []


def test_frames_without_videos_are_refused(tmp_path: Path) -> None:
    assert problems(written(tmp_path / "t.xml", CVAT)) == [("times", "t.xml track 0")]
    assert [kind for kind, _ in problems(written(tmp_path / "t.json", LABEL_STUDIO))] == ["times"]


def test_frames_that_the_video_does_not_have(tmp_path: Path, videos: Path) -> None:
    source = written(tmp_path / "t.xml", CVAT.replace('frame="11"', 'frame="12"'))
    assert problems(source, videos=videos) == [("times", "t.xml track 0")]


def test_tasks_of_a_project_have_their_own_video_and_split(tmp_path: Path, videos: Path) -> None:
    found = converted(written(tmp_path / "p.xml", CVAT_PROJECT), videos=videos)
    assert [(Path(path).name, label, split) for path, label, *_, split in found] == [
        ("vfr.mp4", "a", "val"),
        ("even.mp4", "b", ""),
    ]
    assert [float(second) for second in found[1][2:4]] == pytest.approx([0.2, 0.28])


@pytest.mark.parametrize("tiers", [("action",), ("hand", "finger"), ("action", "hand", "finger")])
def test_tiers_are_chosen(tmp_path: Path, tiers: tuple[str, ...]) -> None:
    said = {"action": {"winken ✋", "rest"}, "hand": {"left"}, "finger": {"index"}}
    found = converted(written(tmp_path / "a.eaf", ELAN), tiers=tiers)
    assert {row[1] for row in found} == set().union(*(said[tier] for tier in tiers))
    if "hand" not in tiers:
        assert {row[1] for row in converted(written(tmp_path / "v.json", VIA), tiers=tiers)} == {"wave"}


def test_folders_of_files(tmp_path: Path) -> None:
    written(tmp_path / "th" / "Diving_val.txt", "video_validation_01 1 2\n")
    written(tmp_path / "th" / "Diving_test.txt", "video_test_01 3 4\n")
    written(tmp_path / "th" / "Ambiguous_val.txt", "video_validation_01 5 6\nvideo_validation_01 7 8\n")
    written(tmp_path / "th" / "readme.txt", "what this is")
    (tmp_path / "th" / "all.zip").write_bytes(b"PK\xff\0")
    written(tmp_path / "th" / ".hidden.json", "{")
    assert converted(tmp_path / "th") == [
        ("video_test_01", "Diving", "3.0", "4.0", "test"),
        ("video_validation_01", "Diving", "1.0", "2.0", "train"),
    ]
    made = convert_labels(tmp_path / "th", tmp_path / "out.csv", show=False)
    assert any("readme.txt" in note for note in made.notes)
    assert any("ambiguous segments (2)" in note for note in made.notes)
    for name in ("a", "b"):
        written(tmp_path / "eafs" / f"{name}.eaf", ELAN.replace("a.mp4", f"{name}.mp4"))
    assert [row[0] for row in converted(tmp_path / "eafs", tiers=["hand"])] == ["a.mp4", "b.mp4"]


def test_tables_that_list_tables(tmp_path: Path) -> None:
    written(tmp_path / "train.csv", "gs://b/a.mp4,wave,0,1\n")
    written(tmp_path / "test.csv", "gs://b/b.mp4,rest,0,inf\nTRAIN,gs://b/c.mp4,wave,1,2\n")
    source = written(tmp_path / "all.csv", "TRAIN,gs://b/x/train.csv\nTEST,gs://b/x/test.csv\n")
    assert [(row[0], row[4]) for row in converted(source)] == [
        ("gs://b/a.mp4", "train"), ("gs://b/b.mp4", "test"), ("gs://b/c.mp4", "train"),
    ]  # fmt: skip
    (tmp_path / "test.csv").unlink()
    (tmp_path / "out.csv").unlink()
    assert problems(source) == [("unreadable", "all.csv line 2")]


# ---- what is left out and what is decided


@pytest.mark.parametrize(
    ("file", "content", "notes"),
    [
        ("a.json", ACTIVITYNET, ["1 videos without segments"]),
        ("a.eaf", ELAN, ["several media"]),
        ("p.boris", BORIS, ["1 point events", "1 observations without media", "several players"]),
        ("p.tsv", AGGREGATED, ["1 point events", "1 segments without media"]),
        ("v.json", VIA, ["1 regions"]),
        ("v.csv", VIA_SEGMENTS_CSV, ["1 regions", "ids"]),
        ("t.xml", CVAT_TAGS, ["1 shapes"]),
        (
            "samples.json",
            FIFTYONE,
            ["1 answers of a model", "1 labels of whole files beside segments", "1 fields of type Detections"],
        ),
        ("labels.json", FIFTYONE_LABELS, ["1 files without labels"]),
        (
            "t.json",
            LABEL_STUDIO,
            ["1 labels of whole files beside segments", "1 results of type timeserieslabels", "frameRate"],
        ),
    ],
)
def test_notes_say_what_is_left_out(tmp_path: Path, videos: Path, file: str, content: Any, notes: list[str]) -> None:
    _, labels = read_labels(written(tmp_path / file, content))
    said = [*labels.notes, *(f"{many} {what}" for what, many in labels.left_out.items())]
    assert all(any(note in one for one in said) for note in notes)
    assert len(said) == len(notes)


def test_what_a_training_would_read_otherwise_is_noted(tmp_path: Path) -> None:
    source = written(tmp_path / "Diving_val.txt", "a 1 4\na 1 4\na 2 3\na 3.5 5\na 5 6\nb 1 9\n")
    assert len(converted(source)) == 5
    notes = convert_labels(source, tmp_path / "out.csv", show=False).notes
    assert [note.split()[-1] for note in notes] == ["2", "train", "(1)"]  # overlaps, the split, lines that stand twice
    source = written(tmp_path / "a.eaf", ELAN.replace("left", "left; up"))
    assert any("'left; up'" in note for note in convert_labels(source, tmp_path / "out.csv", show=False).notes)


# ---- faults


def changed(document: Any, *path: Any, to: Any) -> Any:
    """A copy of JSON in which one value is another."""
    copy = json.loads(json.dumps(document))
    inner = copy
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = to
    return copy


def test_all_faults_are_told_at_once_with_their_places(tmp_path: Path) -> None:
    database = {
        "a": {
            "subset": "training",
            "annotations": [{"label": "x", "segment": [3, 2]}, {"label": "", "segment": [1, 2]}],
        },
        "b": {"subset": "elsewhere", "annotations": [{"label": None, "segment": [0]}]},
        "c": 5,
        "d": {
            "subset": "training",
            "annotations": [{"label": "x", "segment": [-1, 2]}, {"label": "x", "segment": [1, 2]}],
        },
    }
    assert problems(written(tmp_path / "a.json", {"database": database})) == [
        ("times", "a.json a annotation 1"),
        ("empty-label", "a.json a annotation 2"),
        ("empty-label", "a.json b annotation 1"),
        ("split", "a.json b annotation 1"),
        ("times", "a.json b annotation 1"),
        ("layout", "a.json database c"),
        ("times", "a.json d annotation 1"),
    ]
    many = "".join(f"v{number} 5 4\n" for number in range(50))
    assert len(problems(written(tmp_path / "Diving_val.txt", many))) == 50


FAULTS: dict[str, tuple[str, Any, list[tuple[str, str]]]] = {
    "results of a model": ("r.json", {"version": "1", "results": {"a": []}}, [("layout", "r.json")]),
    "no segments": ("r.json", {"database": {}}, [("layout", "SOURCE")]),
    "a slot without a time": (
        "a.eaf",
        ELAN.replace(' TIME_VALUE="2000"', ""),
        [("times", "a.eaf tier 'action' annotation a2")],
    ),
    "an annotation of nothing": (
        "a.eaf",
        ELAN.replace('ANNOTATION_REF="a1"', 'ANNOTATION_REF="a4"'),
        [("times", "a.eaf tier 'hand' annotation a3"), ("times", "a.eaf tier 'finger' annotation a4")],
    ),
    "no text": ("a.eaf", ELAN.replace("left", " "), [("empty-label", "a.eaf tier 'hand' annotation a3")]),
    "other units": ("a.eaf", ELAN.replace('"milliseconds"', '"PAL-frames"'), [("times", "a.eaf")]),
    "a state that never ends": (
        "p.boris",
        changed(BORIS, "observations", "day 1", "events", 3, to=[13.0, "Anna", "peck", "", ""]),
        [("times", "p.boris observation 'day 1' event 1")],
    ),
    "a behaviour that is not in the project": (
        "p.boris",
        changed(BORIS, "behaviors_conf", "1", to={"code": "other", "type": "Point event"}),
        [("label", "p.boris observation 'day 1' event 3")],
    ),
    "an event before its file begins": (
        "p.boris",
        changed(BORIS, "observations", "day 1", "events", 0, to=[9.0, "Anna", "eat", "", ""]),
        [("times", "p.boris observation 'day 1' event 1")],
    ),
    "no lengths": (
        "p.boris",
        changed(BORIS, "observations", "day 1", "media_info", to=None),
        [("times", "p.boris observation 'day 1'")],
    ),
    "two files on one clock": (
        "p.csv",
        OLD_AGGREGATED.replace("o2", "o1"),
        [("times", "p.csv line 4")],
    ),
    "too few cells": ("p.csv", OLD_AGGREGATED + "o3,c.mp4\n", [("cells", "p.csv line 5")]),
    "nothing said": ("v.json", changed(VIA, "metadata", "1_a", "av", to={}), [("empty-label", "v.json metadata 1_a")]),
    "no file": ("v.json", changed(VIA, "file", to={}), [("empty-path", f"v.json metadata 1_{key}") for key in "aabb"]),
    "a shape without a frame": (
        "t.xml",
        CVAT.replace('frame="3"', 'frame="x"'),
        [("layout", "t.xml track 0"), ("times", "t.xml track 0")],
    ),
    "no media in data": (
        "t.json",
        changed(LABEL_STUDIO, 0, "data", to={"a": 1}),
        [("empty-path", f"t.json task 1 result {r}") for r in ("r1", "r1", "r2", "r3", "r4")],
    ),
    "a time that is none": ("g.csv", GOOGLE, [("times", "g.csv line 3")]),
    "boxes": ("g.csv", "TRAIN,gs://b/a.mp4,dog,1,2,0.1,0.2,,,0.5,0.5\n", [("cells", "g.csv line 1")]),
}


@pytest.mark.parametrize("name", FAULTS)
def test_faults(tmp_path: Path, name: str) -> None:
    file, content, expected = FAULTS[name]
    source = written(tmp_path / file, content)
    assert problems(source) == [(kind, where.replace("SOURCE", str(source))) for kind, where in expected]


def test_unknown_tiers_are_told_with_those_that_there_are(tmp_path: Path) -> None:
    source = written(tmp_path / "a.eaf", ELAN)
    with pytest.raises(DataProblems, match=r"'hands'(.|\n)*'action', 'finger', 'hand'"):
        convert_labels(source, tmp_path / "out.csv", tiers=["hands", "hand"], show=False)
    assert problems(source, tiers=["hands"]) == [("layout", str(source))]


@pytest.mark.parametrize("form", FORMATS)
@pytest.mark.parametrize("content", ["", "plain words", "[]", "{}", "[1]", '{"a": 1}', "<a/>", "a,b\n1,2\n", '"'])
def test_what_is_in_no_format(tmp_path: Path, content: str, form: str) -> None:
    source = written(tmp_path / "a.txt", content)
    with pytest.raises(ValueError, match="elan") as caught:
        convert_labels(source, tmp_path / "out.csv", show=False)
    assert all(one.EXPECTED in str(caught.value) for one in FORMATS.values())
    with pytest.raises(ValueError):
        convert_labels(source, tmp_path / "out.csv", from_format=form, show=False)
    assert not (tmp_path / "out.csv").exists()


def test_two_formats_in_a_folder_are_named(tmp_path: Path) -> None:
    written(tmp_path / "x" / "a.eaf", ELAN)
    written(tmp_path / "x" / "a.json", ACTIVITYNET)
    with pytest.raises(ValueError, match=r"a\.eaf: elan; a\.json: activitynet"):
        convert_labels(tmp_path / "x", tmp_path / "out.csv", show=False)


BOMB = """<?xml version="1.0"?>
<!DOCTYPE ANNOTATION_DOCUMENT [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;"><!ENTITY c "&b;&b;&b;&b;">]>
<ANNOTATION_DOCUMENT>&c;</ANNOTATION_DOCUMENT>
"""


@pytest.mark.parametrize(
    "content",
    [
        BOMB,
        '<!DOCTYPE a [<!ENTITY a SYSTEM "file:///etc/passwd">]><ANNOTATION_DOCUMENT>&a;</ANNOTATION_DOCUMENT>',
        '<!DOCTYPE a [<!ENTITY % a "x">]><ANNOTATION_DOCUMENT/>',
    ],
)
def test_xml_that_declares_entities_is_not_read(tmp_path: Path, content: str) -> None:
    source = written(tmp_path / "a.eaf", content)
    with pytest.raises(DataProblems, match="entity"):
        convert_labels(source, tmp_path / "out.csv", from_format="elan", show=False)


@pytest.mark.parametrize("content", [b"<a>", b"{", b"[" * 100_000, b"\xff\xfe", b"[1,]"])
def test_what_cannot_be_parsed_is_told(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.json").write_bytes(content)
    with pytest.raises(DataProblems) as caught:
        convert_labels(tmp_path / "a.json", tmp_path / "out.csv", from_format="activitynet", show=False)
    assert [problem.kind for problem in caught.value.problems] == ["unreadable"]


JSON_EXAMPLES = {
    "activitynet": ACTIVITYNET,
    "boris": BORIS,
    "via": VIA,
    "label-studio": LABEL_STUDIO,
    "fiftyone": FIFTYONE,
}


@pytest.mark.parametrize("form", JSON_EXAMPLES)
@pytest.mark.parametrize("wrong", [None, 7, "x", [], {}, [[1]], {"a": {"b": 1}}, True])
def test_a_value_of_another_kind_never_ends_in_anything_but_an_error_for_the_user(
    tmp_path: Path, form: str, wrong: Any
) -> None:
    def places(value: Any, way: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
        inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
        return [way] * bool(way) + [one for key, part in inner for one in places(part, (*way, key))]

    for way in places(JSON_EXAMPLES[form]):
        source = written(tmp_path / "a.json", changed(JSON_EXAMPLES[form], *way, to=wrong))
        try:
            _, labels = read_labels(source, from_format=form)
        except ValueError:
            continue
        assert all(one.end is None or 0 <= (one.start or 0) < one.end for one in labels.annotations)
        assert all(one.label.strip() and one.file.strip() for one in labels.annotations)


# ---- videos


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(b"x")
    return folder


@pytest.mark.parametrize(
    ("named", "there", "found"),
    [
        ("a.mp4", ["a.mp4"], "a.mp4"),
        ("/home/me/a.mp4", ["x/a.mp4"], "x/a.mp4"),
        ("D:\\day 1\\a.mp4", ["a.mp4"], "a.mp4"),
        ("file:///D:/day%201/a.mp4", ["day 1/a.mp4", "day 2/a.mp4"], "day 1/a.mp4"),
        ("gs://bucket/day 1/a.mp4", ["day 1/a.mp4", "day 2/a.mp4"], "day 1/a.mp4"),
        ("https://x.org/a.mp4?token=b/c", ["a.mp4"], "a.mp4"),
        ("/data/local-files/?d=day/a.mp4", ["day/a.mp4", "a.mp4"], "day/a.mp4"),
        ("/data/local-files/?d=films/day%201/a%23%25.mp4", ["day 1/a#%.mp4", "day 2/a#%.mp4"], "day 1/a#%.mp4"),
        ("/data/local-files/?d=videos/a.mp4", ["a.mp4", "x/a.mp4"], "a.mp4"),
        ("/other/videos/x/a.mp4", ["a.mp4", "x/a.mp4", "y/a.mp4"], "x/a.mp4"),
        ("video_test_0000001", ["video_test_0000001.mp4", "video_test_00000010.mp4"], "video_test_0000001.mp4"),
        ("-Ab_c", ["v_-Ab_c.mkv"], "v_-Ab_c.mkv"),
        ("e\u0301.mp4", ["\u00e9.mp4"], "\u00e9.mp4"),
        ("\u00e9.mp4", ["e\u0301.mp4"], "e\u0301.mp4"),
        ("a.mp4", ["a.mkv"], None),
        ("a", ["a.txt"], None),
        ("a", ["a.mp4", "a.wav", "a.jpg"], "a.mp4"),
        ("a.wav", ["a.mp4", "a.wav"], "a.wav"),
        ("a", ["a.mp4", "x/a.mkv"], None),
        ("a.mp4", ["x/a.mp4", "y/a.mp4"], None),
        ("b.mp4", ["a.mp4"], None),
        ("/", ["a.mp4"], None),
    ],
)
def test_files_are_found_by_their_names(tmp_path: Path, named: str, there: list[str], found: str | None) -> None:
    videos = Videos(touch(tmp_path / "videos", "other.mp4", *there))
    if found is None:
        with pytest.raises(ValueError) as caught:
            videos.find(named)
        if len(there) > 1:
            assert all(repr(one) in str(caught.value) for one in there)
    else:
        assert videos.find(named) == tmp_path / "videos" / found


def test_names_are_taken_apart() -> None:
    assert path_parts("file:///C:/day%201/a.mp4") == ("day 1", "a.mp4")
    assert path_parts("./a/../b%201.mp4") == ("a", "b%201.mp4")


def test_paths_are_relative_to_the_table_and_the_table_is_one_to_train_on(tmp_path: Path) -> None:
    touch(tmp_path, "clips/v_sJ1-abc.mp4", "clips/b2.webm")
    source = written(tmp_path / "labels" / "a.json", ACTIVITYNET)
    convert_labels(source, tmp_path / "out.csv", videos=tmp_path / "clips", show=False)
    found = read_table(tmp_path / "out.csv", root=tmp_path)
    assert found.problems == []
    assert found.items == [
        Item("clips/v_sJ1-abc.mp4", "Weitsprung – ü", 9.1, 20.4, "train"),
        Item("clips/v_sJ1-abc.mp4", "Rest", 0.0, 9.1, "train"),
        Item("clips/b2.webm", "Rest", 1.0, 4.5, "val"),
    ]
    convert_labels(source, tmp_path / "labels" / "out.csv", videos=tmp_path / "clips", show=False)
    outside = read_table(tmp_path / "labels" / "out.csv", root=tmp_path / "labels").items
    assert outside == [replace(item, path=(tmp_path / item.path).as_posix()) for item in found.items]


def test_files_that_are_not_there_are_told_once_each_with_the_other_faults(tmp_path: Path) -> None:
    touch(tmp_path, "clips/b2.mp4", "clips/x/b2.mkv")
    source = written(
        tmp_path / "a.json", changed(ACTIVITYNET, "database", "c3", "annotations", to=[{"segment": [1, 2]}])
    )
    assert problems(source, videos=tmp_path / "clips") == [
        ("empty-label", "a.json c3 annotation 1"),
        ("missing-file", "a.json sJ1-abc annotation 1 (2 segments)"),
        ("missing-file", "a.json b2 annotation 1 (1 segment)"),
    ]


def test_a_video_that_cannot_be_read_is_told_with_its_place(tmp_path: Path) -> None:
    touch(tmp_path, "clips/vfr.mp4")
    assert problems(written(tmp_path / "t.xml", CVAT), videos=tmp_path / "clips") == [
        ("unreadable", "t.xml track 0 (2 segments)")
    ]


@pytest.mark.parametrize("out", ["nowhere/out.csv", "out.mp4", "a.json", "note.csv", "folder.csv"])
def test_nothing_else_is_replaced(tmp_path: Path, out: str) -> None:
    source = written(tmp_path / "a.json", ACTIVITYNET)
    written(tmp_path / "note.csv", "mine")
    (tmp_path / "folder.csv").mkdir()
    with pytest.raises(ValueError, match=Path(out).name):
        convert_labels(source, tmp_path / out, show=False)
    assert (tmp_path / "note.csv").read_text() == "mine"
    assert json.loads(source.read_text()) == ACTIVITYNET


# ---- laws


def test_what_is_written_is_what_was_said_whatever_the_times_and_names(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    letters = list("ab é✋'\",;=\t漢-")
    for _ in range(30):
        said = set()
        database: dict[str, Any] = {}
        for video in range(rng.integers(1, 4)):
            times = np.sort(rng.uniform(0, 1e4, (int(rng.integers(1, 6)), 2)), axis=1).tolist()
            labels = ["x" + "".join(rng.choice(letters, 4)).strip() for _ in times]
            database[f"v{video}"] = {
                "subset": "training",
                "annotations": [{"label": label, "segment": one} for label, one in zip(labels, times)],
            }
            said |= {(f"v{video}", label, *map(repr, one), "train") for label, one in zip(labels, times)}
        assert set(converted(written(tmp_path / "a.json", {"database": database}))) == said


def test_elan_and_activitynet_of_the_same_segments_are_the_same_table(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    times_ms = np.sort(rng.integers(0, 100_000, (20, 2)), axis=1) + np.array([0, 1])
    slots = "".join(f'<TIME_SLOT TIME_SLOT_ID="{n}" TIME_VALUE="{ms}"/>' for n, ms in enumerate(times_ms.flatten()))
    annotations = "".join(
        f'<ANNOTATION><ALIGNABLE_ANNOTATION ANNOTATION_ID="a{n}" TIME_SLOT_REF1="{2 * n}" TIME_SLOT_REF2="{2 * n + 1}">'
        f"<ANNOTATION_VALUE>c{n % 3}</ANNOTATION_VALUE></ALIGNABLE_ANNOTATION></ANNOTATION>"
        for n in range(20)
    )
    eaf = (
        f'<ANNOTATION_DOCUMENT><HEADER><MEDIA_DESCRIPTOR MEDIA_URL="v" MIME_TYPE="video/mp4"/></HEADER>'
        f'<TIME_ORDER>{slots}</TIME_ORDER><TIER TIER_ID="t">{annotations}</TIER></ANNOTATION_DOCUMENT>'
    )
    segments = [{"label": f"c{n % 3}", "segment": (one / 1000).tolist()} for n, one in enumerate(times_ms)]
    database = {"v": {"subset": "", "annotations": segments}}
    elan = converted(written(tmp_path / "a.eaf", eaf))
    assert elan == converted(written(tmp_path / "a.json", {"database": database}))
    assert len(elan) == 20


# ---- the command


def test_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    source, out = written(tmp_path / "a.eaf", ELAN), tmp_path / "out.csv"
    assert command("convert-labels", source, out, "--tier", "hand", "finger", "--from", "elan", "--json") == 0
    shown = capsys.readouterr()
    made = json.loads(shown.out)
    assert (made["format"], made["segments"], made["files"], made["classes"]) == ("elan", 2, 1, {"left": 1, "index": 1})
    assert made["seconds"] == pytest.approx(2.5)
    assert "2 segments of 1 file" in shown.err
    assert len(rows(out)) == 2
    assert command("convert-labels", source, out, "--from", "praat") == 2
    assert "'praat'" in capsys.readouterr().err
    assert command("convert-labels", source, out, "--tier", "nobody") == 2
    assert "'nobody'" in capsys.readouterr().err
    assert len(rows(out)) == 2
