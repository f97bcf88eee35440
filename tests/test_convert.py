"""Weights of others become a file that predicts at once: the settings are read, the answers are theirs, nothing is lost
in silence."""

import json
import re
from pathlib import Path
from typing import Any

import msgpack
import numpy as np
import pytest
import torch
from naming import naming
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from small_sets import command, pictures, write_image, write_sounds, write_videos
from tiny import configure, tiny
from torch import Tensor
from torch.testing import assert_close

import tubelet
from tubelet.convert.conversion import convert, convert_back, format_name
from tubelet.convert.table import account_rows
from tubelet.data.clip_spec import ClipSpec
from tubelet.data.clips import views
from tubelet.nn import SpaceTimeTransformer
from tubelet.weights import save
from tubelet.weights.dialects.rename import Move
from tubelet.weights.store import read_about

GOLDEN = Path(__file__).parent / "golden"
CLASSES = ["walk", "run", "jump", "sit", "fall", "wave", "clap"]
HF = {"num_attention_heads": 4, "image_size": 32, "id2label": {str(i): name for i, name in enumerate(CLASSES)}}

# What config.json says beside the golden weights, as transformers and timm write it.
CONFIGS: dict[str, dict[str, Any]] = {
    "hf_vivit": {**HF, "model_type": "vivit", "num_frames": 8, "hidden_act": "gelu_fast", "layer_norm_eps": 1e-6},
    "hf_timesformer_divided_space_time": {**HF, "model_type": "timesformer", "num_frames": 4, "hidden_act": "gelu"},
    "hf_timesformer_joint_space_time": {**HF, "model_type": "timesformer", "num_frames": 4, "image_size": [32, 32]},
    "hf_videomae": {**HF, "model_type": "videomae", "num_frames": 8, "hidden_act": "gelu", "layer_norm_eps": 1e-12},
    "hf_vjepa2_encoder": {
        **HF,
        "model_type": "vjepa2",
        "frames_per_clip": 8,
        "crop_size": 32,
        "image_size": 999,
        "hidden_act": "gelu",
    },
    "hf_ast": {
        **HF,
        "model_type": "audio-spectrogram-transformer",
        "num_mel_bins": 32,
        "max_length": 100,
        "frequency_stride": 5,
        "time_stride": 6,
    },
    "timm_vit": {
        "architecture": "vit_tiny_patch16_224",
        "label_names": CLASSES,
        "model_args": {"num_heads": 4, "patch_size": 8},
        "pretrained_cfg": {"input_size": [3, 48, 32], "mean": [0.1, 0.2, 0.3], "std": [0.4, 0.5, 0.6], "crop_pct": 0.8},
    },
    "timm_swinv2_cr": {
        "architecture": "swinv2_cr_tiny_224",
        "model_args": {"num_heads": [2, 4], "img_size": [64, 96]},
        "pretrained_cfg": {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]},
    },
}
DIALECTS = {
    "hf_vivit": "hf-vivit",
    "hf_timesformer_divided_space_time": "hf-timesformer",
    "hf_timesformer_joint_space_time": "hf-timesformer",
    "hf_videomae": "hf-videomae",
    "hf_vjepa2_encoder": "hf-vjepa2",
    "hf_ast": "hf-ast",
    "timm_vit": "timm",
    "timm_swinv2_cr": "timm",
}
PREPROCESSORS = {"hf_ast": {"mean": -3.0, "std": 2.0, "sampling_rate": 8000}}
# what stands nowhere in the files of this one: timm computes windows, these weights were made with others
FLAGS: dict[str, dict[str, Any]] = {"timm_swinv2_cr": {"window": (1, 4, 6)}}


def golden(name: str) -> tuple[dict[str, Tensor], Tensor, Tensor]:
    tensors = load_file(GOLDEN / f"{name}.safetensors")
    weights = {key.removeprefix("weights."): value for key, value in tensors.items() if key.startswith("weights.")}
    return weights, tensors["input"], tensors["logits"]


def published(name: str, folder: Path, **changes: Any) -> Path:
    """The golden weights in a folder as their authors would publish them; a change of None leaves a key out."""
    folder.mkdir(parents=True)
    save_file(golden(name)[0], folder / "model.safetensors")
    config = {key: value for key, value in (CONFIGS[name] | changes).items() if value is not None}
    (folder / "config.json").write_text(json.dumps(config))
    if name in PREPROCESSORS:
        (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSORS[name]))
    return folder


def as_clip(name: str, pixels: Tensor) -> Tensor:
    """Their input in our axes, (B, C, T, H, W)."""
    if name == "hf_ast":
        return pixels.transpose(1, 2)[:, None, None]
    return pixels[:, :, None] if name.startswith("timm") else pixels.transpose(1, 2)


def converted(name: str, folder: Path, **settings: Any) -> Path:
    return convert(published(name, folder / "theirs"), folder / "ours", show=False, **FLAGS.get(name, {}), **settings)


def spec_of(file: Path) -> ClipSpec:
    return ClipSpec.from_json(read_about(file)["clip_spec"])


# ---- the answers are theirs, with no flag but what config.json lacks


@pytest.mark.parametrize("name", CONFIGS)
def test_the_answers_are_the_originals(name: str, tmp_path: Path) -> None:
    file = converted(name, tmp_path)
    assert file == tmp_path / "ours" / "model.safetensors"
    model = tubelet.load(file)
    _, pixels, expected = golden(name)
    with torch.inference_mode():
        clip = as_clip(name, pixels)
        found = model.tokens(clip)[0] if name == "hf_vjepa2_encoder" else model(clip)
    assert_close(found, expected, atol=1e-5, rtol=0)
    about = read_about(file)
    assert about["converted"] == {"file": "model.safetensors", "dialect": DIALECTS[name]}
    assert about.get("classes") == (None if name in ("hf_vjepa2_encoder", "timm_swinv2_cr") else CLASSES)


def scenic(tree: str = "scenic_model1_token") -> tuple[dict[str, np.ndarray], Tensor, Tensor]:
    arrays = np.load(GOLDEN / f"{tree}.npz")
    weights = {key.removeprefix("param/"): arrays[key] for key in arrays.files if key.startswith("param/")}
    return weights, torch.from_numpy(arrays["input_bthwc"]), torch.from_numpy(arrays["logits"])


def write_checkpoint(file: Path, weights: dict[str, np.ndarray]) -> Path:
    """As scenic writes it: a tree in msgpack, with the state of the trainer."""
    tree: dict[str, Any] = {}
    for name, value in weights.items():
        *path, last = name.split("/")
        branch = tree
        for part in path:
            branch = branch.setdefault(part, {})
        branch[last] = msgpack.ExtType(1, msgpack.packb((value.shape, value.dtype.name, value.tobytes())))
    file.write_bytes(msgpack.packb({"optimizer": {"target": tree, "state": {"step": 1}}, "global_step": 1}))
    return file


def test_scenic_tells_its_heads_by_itself(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    weights, clip, expected = scenic()
    checkpoint = write_checkpoint(tmp_path / "checkpoint", weights)
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(expected.shape[1])) + "\n\n")
    flags = ("--clip", "8", "32", "48", "--classes", names, "--seconds-between-frames", "0.5")
    assert command("convert", checkpoint, tmp_path / "ours.safetensors", *flags) == 0
    model = tubelet.load(tmp_path / "ours.safetensors")
    assert model.config.stages[0].heads == 4
    with torch.inference_mode():
        assert_close(model(clip.permute(0, 4, 1, 2, 3)), expected, atol=1e-5, rtol=0)
    about = read_about(tmp_path / "ours.safetensors")
    assert about["classes"] == [f"class {i}" for i in range(expected.shape[1])]
    assert about["clip_spec"]["seconds_between_frames"] == 0.5
    shown = " ".join(capsys.readouterr().out.split())
    assert "global_step left: a trainer's, no parameters" in shown
    assert "optimizer/state left: a trainer's" in shown
    assert "0.08" not in shown


# ---- `tubelet predict` works at once, and sees what the original would


def answers(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> dict[str, float]:
    assert command("predict", *arguments, "--json", "--device", "cpu", "--dtype", "float32") == 0
    return json.loads(capsys.readouterr().out)["probabilities"]


def test_predict_on_video(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = converted("hf_vivit", tmp_path)
    clip = write_videos(tmp_path / "clips", 1) / "dark" / "0.mp4"
    found = answers(capsys, file.parent, clip)
    pixels = tubelet.load(file).normalise(views(clip, spec_of(file)))
    assert -1 <= pixels.min() < -0.2  # [-1, 1] as ViViT was trained, not twice normalised
    assert pixels.max() <= 1
    with torch.inference_mode():
        expected = tubelet.load(file)(pixels).softmax(1)[0]
    assert found.keys() == set(CLASSES)
    assert_close(torch.tensor([found[name] for name in CLASSES]), expected, atol=1e-5, rtol=0)


def test_predict_on_pictures(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = converted("timm_vit", tmp_path)
    write_image(tmp_path / "a.png", pictures(100, [0], frames=1)[0])
    found = answers(capsys, file, tmp_path / "a.png")
    with torch.inference_mode():
        expected = tubelet.load(file)(views(tmp_path / "a.png", spec_of(file))).softmax(1)[0]
    assert_close(torch.tensor([found[name] for name in CLASSES]), expected, atol=1e-5, rtol=0)


def test_predict_on_sound(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file = converted("hf_ast", tmp_path)
    sound = write_sounds(tmp_path / "sounds", 1) / "high" / "0.wav"
    assert answers(capsys, file.parent, sound).keys() == set(CLASSES)


# ---- how the original saw its files

IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))
VIVIT, TIMESFORMER = ((0.5,) * 3, (0.5,) * 3), ((0.45,) * 3, (0.225,) * 3)


@pytest.mark.parametrize(
    ("name", "statistics", "seconds", "resize"),
    [
        ("hf_vivit", VIVIT, 2 / 25, (36, 36)),
        ("hf_timesformer_divided_space_time", TIMESFORMER, 64 / 30, (36, 36)),
        ("hf_videomae", IMAGENET, 4 / 30, (32, 32)),
        ("hf_vjepa2_encoder", IMAGENET, 1 / 4, (36, 36)),
    ],
)
def test_clip_spec_of_video(
    name: str, statistics: tuple[Any, Any], seconds: float, resize: tuple[int, int], tmp_path: Path
) -> None:
    file = converted(name, tmp_path)
    spec, model = spec_of(file), tubelet.load(file)
    assert (spec.kind, spec.clip_size, spec.resize) == ("video", model.input_size, resize)
    assert spec.seconds_between_frames == pytest.approx(seconds)
    for found in (spec, model.config):
        pair = tuple(tuple(values) * (3 // len(values)) for values in (found.mean, found.std))
        assert pair == statistics
    assert spec_of(converted(name, tmp_path / "told", seconds_between_frames=0.3)).seconds_between_frames == 0.3


def test_clip_spec_of_pictures_and_sound(tmp_path: Path) -> None:
    picture = spec_of(converted("timm_vit", tmp_path / "a"))
    assert (picture.kind, picture.crop, picture.resize) == ("image", (48, 32), (60, 40))
    assert (picture.mean, picture.std) == ((0.1, 0.2, 0.3), (0.4, 0.5, 0.6))
    sound = spec_of(converted("hf_ast", tmp_path / "b"))
    assert (sound.kind, sound.crop, sound.seconds_between_frames) == ("sound", (32, 100), 0.010)
    assert (sound.mean, sound.std, sound.sample_rate) == ((-3.0,), (4.0,), 8000)
    folder = published("hf_ast", tmp_path / "c")
    (folder / "preprocessor_config.json").unlink()
    usual = spec_of(convert(folder, tmp_path / "d", show=False))
    assert (usual.mean, usual.std) == (pytest.approx((-4.2677393,)), pytest.approx((9.1379948,)))
    assert usual.sample_rate == 16000


def test_audiomae_is_asked_for_and_hears_sound(tmp_path: Path) -> None:
    weights, pixels, expected = golden("timm_vit_spectrogram")
    save_file(weights, tmp_path / "w.safetensors")
    file = convert(
        tmp_path / "w.safetensors", tmp_path / "ours", dialect="audiomae", heads=4, clip=(1, 16, 64), show=False
    )
    spec = spec_of(file)
    assert (spec.kind, spec.crop, spec.mean, spec.std) == ("sound", (16, 64), (-4.2677393,), (2 * 4.5689974,))
    with torch.inference_mode():
        found = tubelet.load(file)(pixels.transpose(2, 3)[:, :, None])
    assert_close(found, expected, atol=1e-5, rtol=0)


def test_a_preprocessor_counts_but_for_vivit(tmp_path: Path) -> None:
    """Hugging Face's processor of ViViT scales to [-1, 1] and then normalises again."""
    for name, expected in (("hf_videomae", (0.5, 0.4, 0.3)), ("hf_vivit", (0.5, 0.5, 0.5))):
        folder = published(name, tmp_path / name)
        found = {"image_mean": [0.5, 0.4, 0.3], "image_std": [0.1, 0.1, 0.1]}
        (folder / "preprocessor_config.json").write_text(json.dumps(found))
        assert spec_of(convert(folder, tmp_path / f"{name}-ours", show=False)).mean == expected


def test_a_model_without_head_has_no_classes(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(published("hf_vjepa2_encoder", tmp_path / "a"), tmp_path / "b")
    assert "classes" not in read_about(tmp_path / "b")
    shown = capsys.readouterr().out
    assert "none: features" in shown
    assert "tubelet embed" in shown
    assert "recordings/" in shown


# ---- what is printed


def test_what_is_shown_and_what_comes_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    published("hf_vivit", tmp_path / "theirs")
    monkeypatch.chdir(tmp_path)
    assert command("convert", "theirs", "our model") == 0
    shown = " ".join(capsys.readouterr().out.split())
    for words in (
        "40 tensors of hf-vivit weights",
        "7: walk, run, jump, sit, fall, wave, ...",
        "8 frames of 32x32 px, 0.08 s apart",
        "as ViViT on Kinetics",
        "pixels in [-1, 1]",
        "tubelet predict 'our model/model.safetensors' clip.mp4",
    ):
        assert words in shown, words


def test_without_class_names_it_says_how_to_give_them(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    convert(published("hf_videomae", tmp_path / "a", id2label=None), tmp_path / "b")
    assert "classes" not in read_about(tmp_path / "b")
    assert "--classes FILE" in " ".join(capsys.readouterr().out.split())
    (tmp_path / "names.txt").write_text("\n".join(CLASSES))
    file = convert(tmp_path / "a", tmp_path / "c", classes=tmp_path / "names.txt", show=False)
    assert read_about(file)["classes"] == CLASSES
    file = convert(tmp_path / "a", tmp_path / "d", classes=["crane"] * 3 + CLASSES[3:], show=False)
    assert read_about(file)["classes"] == ["crane", "crane (2)", "crane (3)", *CLASSES[3:]]


def test_rows_of_the_account() -> None:
    moves = [
        Move(f"m.{i}.{part}.weight", f"e.0.b.{i}.{part}.weight", "taken", "3 x 2") for i in range(12) for part in "ab"
    ]
    moves += [Move(f"m.{i}.a.weight", f"e.0.b.{i}.a.weight", "taken", "3 x 4") for i in (12, 13)]
    moves += [Move("cls + pos_cls", "e.0.prefix", "folded", "1 x 1 x 2"), Move("gone.x", "", "left: for training", "9")]
    moves += [Move(f"more.{i}", "", "left: for training", str(i)) for i in range(3)]
    moves += [
        Move(
            "s/kernel + s/bias",
            " + ".join(f"b.{i}.{x}" for i in range(24) for x in "wc"),
            "taken",
            "2 x 2 + 2" + " + 2 x 2 + 2" * 23,
        )
    ]
    moves += [Move(f"T/encoderblock_{i}/Norm_0/scale", f"b.{i}.n.weight", "taken", "2") for i in range(3)]
    assert account_rows(moves) == [
        ("m.0.a.weight", "e.0.b.0.a.weight", "3 x 2", "taken, 12 times"),
        ("m.0.b.weight", "e.0.b.0.b.weight", "3 x 2", "taken, 12 times"),
        ("m.12.a.weight", "e.0.b.12.a.weight", "3 x 4", "taken, 2 times"),
        ("cls + pos_cls", "e.0.prefix", "1 x 1 x 2", "folded"),
        ("gone.x", "", "9", "left: for training"),
        ("more.0", "", "0", "left: for training, 3 times"),
        ("s/kernel + s/bias", "b.0.w + b.0.c", "2 x 2 + 2", "taken, 24 times"),
        ("T/encoderblock_0/Norm_0/scale", "b.0.n.weight", "2", "taken, 3 times"),
    ]


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        ({"dim": 768, "depth": 12, "heads": 12, "patch": (2, 16, 16), "clip": (4, 16, 16)}, "vivit1-B/16x2"),
        ({"dim": 768, "depth": 12, "heads": 12, "patch": (1, 16, 8), "clip": (4, 16, 16)}, "vivit1-B/16x8"),
        ({}, "vivit1/4x2 of width 24, 2 layers, 4 heads"),
    ],
)
def test_the_name_of_a_model(settings: dict[str, Any], expected: str) -> None:
    assert format_name(configure("vivit1", **settings)) == expected


# ---- what is missing or wrong is said, and nothing is written


@pytest.mark.parametrize(
    ("name", "changes", "values"),
    [
        ("hf_vivit", {"num_attention_heads": None}, ("heads", "--heads N")),
        ("hf_vivit", {"num_frames": None}, ("clip", "--clip T H W")),
        ("hf_vivit", {"image_size": None}, ("config.json", "--clip T H W")),
        ("hf_vivit", {"model_type": "bert"}, ("config.json", "'bert'", "'vivit'")),
        ("hf_vivit", {"num_frames": "8"}, ("num_frames = 8", "whole")),
        ("hf_vivit", {"num_frames": True}, ("num_frames = True", "whole")),
        ("hf_vivit", {"image_size": [32]}, ("image_size = [32]", 1)),
        ("hf_vivit", {"image_size": 224}, ("65 rows", "clip=(T, H, W)")),
        ("hf_vivit", {"hidden_act": "relu"}, ("hidden_act", "'relu'", "'tanh'")),
        ("hf_videomae", {"layer_norm_eps": 0.1}, ("layer_norm_eps", 0.1, 1e-12)),
        ("hf_vivit", {"id2label": {"0": "a", "1": "b"}}, (2, 7, "--classes FILE")),
        ("hf_vivit", {"id2label": {"1": "a"}}, ("class names",)),
        ("timm_vit", {"architecture": "vit_x_quickgelu_224"}, ("vit_x_quickgelu_224", "GELU")),
        ("timm_vit", {"model_args": {"num_heads": 4, "act_layer": "relu"}}, ("'relu'", "'erf'")),
        ("timm_vit", {"model_args": 3}, ("model_args = 3",)),
        ("timm_vit", {"model_args": {}}, ("heads", 3, 32)),
    ],
)
def test_settings_that_are_missing_or_wrong(
    name: str, changes: dict[str, Any], values: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = published(name, tmp_path / "theirs", **changes)
    assert command("convert", folder, tmp_path / "ours") == 2
    shown = capsys.readouterr()
    assert shown.err.startswith("tubelet: ")
    assert re.search(naming(*values), shown.err), shown.err
    assert not (tmp_path / "ours").exists()


def test_what_is_asked_for_without_config(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = published("timm_vit", tmp_path / "theirs")
    (folder / "config.json").unlink()
    for flags, expected in (
        ((), "--heads N"),
        (("--heads", "4"), "--clip T H W"),
    ):
        assert command("convert", folder, tmp_path / "ours", *flags) == 2
        assert re.search(naming("config.json", expected), capsys.readouterr().err)
    assert command("convert", folder, tmp_path / "ours", "--heads", "4", "--clip", "1", "48", "32") == 0
    assert "ImageNet's" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("make", "refused"),
    [
        (lambda path: path.write_text("x"), True),
        (lambda path: (path.mkdir(), (path / "x").write_text("x")), True),
        (lambda path: path.parent.joinpath("file").write_text("x"), False),
        (lambda path: path.mkdir(), False),
    ],
    ids=["file", "folder with a file", "nothing", "empty folder"],
)
def test_nothing_is_overwritten(make: Any, refused: bool, tmp_path: Path) -> None:
    folder = published("hf_vivit", tmp_path / "theirs")
    make(tmp_path / "ours")
    if not refused:
        assert convert(folder, tmp_path / "ours", show=False).is_file()
    else:
        before = sorted(tmp_path.rglob("*"))
        for action in (
            lambda: convert(folder, tmp_path / "ours"),
            lambda: convert_back(folder, tmp_path / "ours", dialect="timm"),
        ):
            with pytest.raises(ValueError, match=naming(tmp_path / "ours")):
                action()
        assert sorted(tmp_path.rglob("*")) == before


def test_a_place_inside_a_file(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(ValueError, match=naming(tmp_path / "file" / "ours")):
        convert(published("hf_vivit", tmp_path / "theirs"), tmp_path / "file" / "ours")


@pytest.mark.parametrize(
    ("text", "values"),
    [
        (b"", ("empty",)),
        (b"a\n\nb\n", ("empty",)),
        (b"\xff\xfe\xfa", ("0xff",)),
        (None, ("Errno 2",)),
    ],
)
def test_a_file_of_class_names_that_is_wrong(text: bytes | None, values: tuple[str, ...], tmp_path: Path) -> None:
    if text is not None:
        (tmp_path / "names.txt").write_bytes(text)
    with pytest.raises(ValueError, match=naming(tmp_path / "names.txt", *values)):
        convert(published("hf_vivit", tmp_path / "a"), tmp_path / "b", classes=tmp_path / "names.txt")


@pytest.mark.parametrize(
    ("make", "flags", "values"),
    [
        (lambda folder: folder, (), ("nowhere",)),
        (lambda folder: torch.save({}, folder / "w.pt") or folder / "w.pt", (), ("w.pt", "pickle")),
        (lambda folder: save(tiny("vivit1"), folder / "m"), (), ("--to DIALECT",)),
        (lambda folder: save(tiny("vivit1"), folder / "m"), ("--to", "nothing"), ("'nothing'", "timm")),
        (lambda folder: save(tiny("vivit1"), folder / "m"), ("--to", "timm"), ("'timm'", "family='vivit1'")),
        (lambda folder: save(tiny("vivit1"), folder / "m"), ("--to", "scenic", "--heads", "4"), ("heads",)),
        (lambda folder: published("hf_vivit", folder / "v"), ("--to", "scenic"), ("model.safetensors", "'tubelet'")),
        (lambda folder: published("hf_vivit", folder / "v"), ("--dialect", "words"), ("'words'", "timm")),
        (lambda folder: published("hf_vivit", folder / "v"), ("--clip", "0", "1", "1"), ("clip=(0, 1, 1)",)),
    ],
)
def test_other_faults(
    make: Any, flags: tuple[str, ...], values: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = make(tmp_path)
    if source == tmp_path:
        source = tmp_path / "nowhere"
    assert command("convert", source, tmp_path / "ours", *flags) == 2
    assert re.search(naming(*values), capsys.readouterr().err)
    assert not (tmp_path / "ours").exists()


# ---- and back


def back(model: SpaceTimeTransformer, dialect: str, folder: Path) -> dict[str, Tensor]:
    save(model, folder / "run")
    assert command("convert", folder / "run", folder / "back", "--to", dialect) == 0
    with safe_open(folder / "back" / "model.safetensors", "pt") as handle:
        assert handle.metadata() == {"format": "pt"}
    return load_file(folder / "back" / "model.safetensors")


@pytest.mark.parametrize(
    ("family", "dialect", "settings"),
    [
        ("vivit1", "scenic", {"gelu": "tanh"}),
        ("vivit1", "hf-vivit", {"gelu": "tanh"}),
        ("timesformer", "hf-timesformer", {"patch": (1, 4, 4)}),
        ("timesformer", "timesformer", {"patch": (1, 4, 4)}),
        ("vit", "timm", {}),
    ],
)
def test_our_weights_in_their_names_and_back(
    family: str, dialect: str, settings: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    model = tiny(family, **settings)
    state = back(model, dialect, tmp_path)
    assert f"{len(state)} tensors in the names of {dialect}" in capsys.readouterr().out
    file = convert(tmp_path / "back", tmp_path / "again", heads=4, clip=model.input_size, show=False)
    clip = torch.randn(1, 3, *model.input_size)
    with torch.inference_mode():
        assert_close(tubelet.load(file)(clip), model(clip), atol=1e-5, rtol=1e-5)
    assert read_about(file)["converted"]["dialect"] == dialect
