"""VideoPrism, in flax's names and in Hugging Face's: what the laws of all dialects do not say."""

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import CASES, TOLERANCE, golden
from naming import naming
from safetensors.torch import save_file
from small_sets import command, write_videos
from tiny import clip_for, configure, tiny
from torch import Tensor
from torch.testing import assert_close

import tubelet
from tubelet.data.clip_spec import ClipSpec
from tubelet.nn import ModelConfig, SpaceTimeTransformer, model_config
from tubelet.weights import from_reference, to_reference
from tubelet.weights.dialects.hf_videoprism import HF_VIDEOPRISM
from tubelet.weights.dialects.rename import ForeignState, Link
from tubelet.weights.dialects.videoprism import VIDEOPRISM, VideoPrism, add_pooling
from tubelet.weights.store import read_about

BOTH = pytest.mark.parametrize("dialect", [VIDEOPRISM, HF_VIDEOPRISM], ids=lambda dialect: dialect.name)
STILL: dict[str, Any] = {"patch": (1, 4, 4), "clip": (3, 8, 12)}


# ---- the published models


def published(size: str, frames: int, *, lvt: bool) -> ModelConfig:
    config = model_config(f"videoprism-{size}/18", clip=(frames, 288, 288), num_classes=0)
    return add_pooling(config, 2, 4 * config.stages[0].dim) if lvt else config


@BOTH
@pytest.mark.parametrize(
    ("size", "frames", "lvt", "parameters"),
    [
        ("B", 16, False, 114_365_184),
        ("B", 16, True, 137_990_656),
        ("L", 8, False, 353_965_056),
        ("L", 8, True, 395_951_360),
    ],
)
def test_published_models_have_the_parameters_and_tell_their_size(
    dialect: VideoPrism, size: str, frames: int, lvt: bool, parameters: int
) -> None:
    config = published(size, frames, lvt=lvt)
    with torch.device("meta"):
        model = SpaceTimeTransformer(config)
        link = Link(model.state_dict(), reading=False)
        dialect.check_supported(config)
        dialect.map_tensors(link, config)
        written = link.finish(dialect.name)
        assert sum(tensor.numel() for tensor in written.values()) == parameters
        told = dialect.published(ForeignState(written))
    assert (told.heads, told.clip) == (config.stages[0].heads, config.clip)


@BOTH
def test_of_other_sizes_nothing_is_guessed(dialect: VideoPrism) -> None:
    told = dialect.published(ForeignState(to_reference(with_pooling(classes=0), dialect.name)))
    assert (told.heads, told.clip) == (4 if dialect is VIDEOPRISM else None, None)  # flax has heads in its shapes


# ---- pooling


def with_pooling(*, classes: int, depth: int = 0, **changes: Any) -> SpaceTimeTransformer:
    """A tiny model with a pooling stage, all of its parameters random."""
    config = configure("videoprism", **STILL | {"num_classes": classes, "mlp_dim": 96})
    config = add_pooling(config, depth, 96).with_stages(pool_eps=1e-6)
    model = SpaceTimeTransformer(config.with_stage(2, **changes))
    torch.manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.2 * torch.randn(parameter.shape))
    return model.eval()


@pytest.mark.parametrize(
    ("dialect", "classes", "depth"), [("videoprism", 0, 2), ("videoprism", 0, 0), ("hf-videoprism", 0, 2)]
)
def test_pooling_without_a_classifier_goes_there_and_back(dialect: str, classes: int, depth: int) -> None:
    model = with_pooling(classes=classes, depth=depth)
    again = from_reference(to_reference(model, dialect), dialect, heads=4, clip=model.config.clip)
    clip = clip_for(model)
    assert [stage.depth for stage in again.config.stages] == [2, 1, depth]
    assert_close(again(clip), model(clip), atol=TOLERANCE, rtol=0)
    assert_close(again.tokens(clip)[0], model.tokens(clip)[0], atol=TOLERANCE, rtol=0)


def test_a_classifier_of_ours_goes_to_hugging_face_and_back() -> None:
    model = with_pooling(classes=5)
    written = to_reference(model, "hf-videoprism")
    assert {name.split(".")[0] for name in written} == {"vision_model", "head", "head_layernorm", "classifier"}
    clip = clip_for(model)
    again = from_reference(written, "hf-videoprism", heads=4, clip=model.config.clip)
    assert_close(again(clip), model(clip), atol=TOLERANCE, rtol=0)


def test_tokens_are_those_before_pooling_and_after_all_layers() -> None:
    """Of a classifier those of its encoder; of LvT those after its auxiliary layers too."""
    state = golden("hf_videoprism_classifier")[0]
    case = CASES["hf_videoprism_classifier"]
    root = "vision_model."
    encoder = {key.removeprefix(root): value for key, value in state.items() if key.startswith(root)}
    clip = torch.randn(2, 3, 5, 18, 30)
    with torch.no_grad():
        whole, bare = case.read(state), case.read(encoder)
        assert_close(whole.tokens(clip)[0], bare.tokens(clip)[0], atol=TOLERANCE, rtol=0)
        assert_close(bare.features(clip), bare.tokens(clip)[0].mean(1), atol=TOLERANCE, rtol=0)


def test_a_video_tower_by_itself_is_read_as_in_lvt() -> None:
    state, given, _ = golden("hf_videoprism_lvt")
    tower = {name.removeprefix("video_model."): value for name, value in state.items() if "video_model." in name}
    case = CASES["hf_videoprism_lvt"]
    assert_close(case.answered(case.read(tower), given), case.answered(case.read(state), given), atol=0, rtol=0)


def test_the_scales_of_the_query_are_folded_in_and_written_as_nothing() -> None:
    state = golden("hf_videoprism_classifier")[0]
    written = to_reference(CASES["hf_videoprism_classifier"].read(state), "hf-videoprism")
    assert state["head.per_dim_scale"].abs().min() > 0
    assert not written["head.per_dim_scale"].any()
    factor = torch.nn.functional.softplus(state["head.per_dim_scale"]) / torch.tensor(2.0).log()
    expected = state["head.q_proj.bias"].view(4, -1) * factor
    assert_close(written["head.q_proj.bias"].view(4, -1), expected)


# ---- what cannot be said


def refused(model: SpaceTimeTransformer, dialect: str, *values: object) -> None:
    with pytest.raises(ValueError, match=naming(f"'{dialect}'", *values)):
        to_reference(model, dialect)


def test_what_neither_program_has_is_refused() -> None:
    for dialect in ("videoprism", "hf-videoprism"):
        refused(tiny("videoprism", **STILL), dialect, "num_classes=5", 0)
        refused(tiny("videoprism", **STILL, num_classes=0, cap=0.0), dialect, "cap=0.0", "50.0")
        refused(tiny("videoprism", num_classes=0), dialect, "patch=(2, 4, 4)", "(1, 4, 4)")
        refused(tiny("vivit2", gelu="tanh"), dialect, "family='vivit2'", "'videoprism'")
        refused(tiny("swin2"), dialect, "family='swin2'")
        refused(with_pooling(classes=0, pool="mean"), dialect, "pool='mean'", "'query'")
        refused(with_pooling(classes=0, pool_dim=48), dialect, "pool_dim=48", 96)
        refused(with_pooling(classes=0, mlp_dim=40), dialect, "mlp_dim=40", 96)
    refused(with_pooling(classes=5), "videoprism", "num_classes=5", 0)
    refused(with_pooling(classes=5, depth=1), "hf-videoprism", "depth=1", 0)


def test_flax_has_square_patches_of_three_colours() -> None:
    refused(tiny("videoprism", num_classes=0, patch=(1, 4, 2), clip=(3, 8, 12)), "videoprism", "patch=(1, 4, 2)")
    refused(tiny("videoprism", **STILL, num_classes=0, channels=1), "videoprism", "channels=1", 3)
    state = golden("videoprism_flax")[0]
    kernel = "patch_projection/linear/kernel"
    with pytest.raises(ValueError, match=naming("(105, 32)")):
        CASES["videoprism_flax"].read(state | {kernel: state[kernel][:105]})


@pytest.mark.parametrize("heads", [2, 8])
def test_flax_tells_its_heads(heads: int) -> None:
    with pytest.raises(ValueError, match=naming(f"heads={heads}", "heads=4")):
        replace(CASES["videoprism_flax"], heads=heads).read(golden("videoprism_flax")[0])


# ---- files as they are published

VISION = {
    "model_type": "videoprism_vision_model",
    "attn_logit_softcapping": 50.0,
    "hidden_act": "gelu_python",
    "image_size": 24,
    "layer_norm_eps": 1e-6,
    "num_attention_heads": 4,
    "num_frames": 5,
}
CLASSES = ["walk", "run", "jump", "sit", "fall", "wave", "clap"]
CONFIGS: dict[str, dict[str, Any]] = {
    "hf_videoprism": VISION,
    "hf_videoprism_classifier": VISION | {"image_size": [18, 30], "id2label": dict(enumerate(CLASSES))},
    "hf_videoprism_lvt": {"model_type": "videoprism", "vision_config": VISION, "text_config": {"hidden_size": 32}},
}
# as transformers writes it for its class of processor: a mean and a std that are not used
PREPROCESSOR = {"do_normalize": False, "image_mean": [0.48, 0.46, 0.41], "image_std": [0.27, 0.26, 0.28]}


def write_published(name: str, folder: Path) -> Path:
    """The golden weights as their authors publish them: an .npz of flax, or a folder of transformers."""
    folder.mkdir()
    state = golden(name)[0]
    if name not in CONFIGS:
        np.savez(folder / "flax.npz", **{f"params/{key}": value.numpy() for key, value in state.items()})
        return folder / "flax.npz"
    save_file(state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(CONFIGS[name]))
    (folder / "preprocessor_config.json").write_text(json.dumps(PREPROCESSOR))
    return folder


@pytest.mark.parametrize("name", [name for name, case in CASES.items() if case.family == "videoprism"])
def test_a_published_file_is_converted_and_embeds(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write_published(name, tmp_path / "theirs")
    flags = () if name in CONFIGS else ("--clip", "5", "24", "24")
    assert command("convert", source, tmp_path / "ours", *flags) == 0
    shown = " ".join(capsys.readouterr().out.split())
    assert ("left:" in shown) == name.endswith("lvt")
    case, (_, given, answer) = CASES[name], golden(name)
    model = tubelet.load(tmp_path / "ours")
    assert_close(case.answered(model, given), answer, atol=TOLERANCE, rtol=0)
    about = read_about(tmp_path / "ours")
    spec = ClipSpec.from_json(about["clip_spec"])
    assert about.get("classes") == (CLASSES if name.endswith("classifier") else None)
    assert (spec.clip_size, spec.resize, spec.seconds_between_frames) == (case.clip, case.clip[1:], 2)
    assert (spec.mean, spec.std) == ((0,) * 3, (1,) * 3)
    clips = write_videos(tmp_path / "clips", 1)
    out = tmp_path / "out"
    assert command("embed", tmp_path / "ours", clips, "--out", out, "--device", "cpu", "--dtype", "float32") == 0
    assert tubelet.Embeddings.load(out).vectors.shape == (2, 32)


def test_a_preprocessor_that_normalises_counts() -> None:
    read = HF_VIDEOPRISM.read_settings
    assert read(VISION, PREPROCESSOR).mean is None
    assert read(VISION, PREPROCESSOR | {"do_normalize": True}).mean == (0.48, 0.46, 0.41)
    assert read({}, {}).heads is None


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"attn_logit_softcapping": 30.0}, ("attn_logit_softcapping", 30.0, 50.0)),
        ({"model_type": "vivit"}, ("'vivit'", "'videoprism_vision_model'")),
        ({"hidden_act": "relu"}, ("hidden_act", "'relu'")),
        ({"num_frames": 4}, ("5 rows", "(4, 1, 1)")),
    ],
)
def test_settings_of_another_model_are_refused(
    changes: dict[str, Any], values: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = write_published("hf_videoprism", tmp_path / "theirs")
    (folder / "config.json").write_text(json.dumps(VISION | changes))
    assert command("convert", folder, tmp_path / "ours") == 2
    assert re.search(naming(*values), capsys.readouterr().err)


# ---- any size


@pytest.mark.parametrize("size", [(1, 6, 6), (1, 12, 30), (9, 6, 42), (2, 42, 6)])
def test_any_size_has_its_tables_resampled_as_the_original_has_them(size: tuple[int, int, int]) -> None:
    """Each axis by itself, linear, over all that a new place stands for: the sums written out."""
    state, case = golden("videoprism_flax")[0], CASES["videoprism_flax"]
    model = case.read(state)
    t, h, w = size[0], size[1] // 6, size[2] // 6
    space, time = state["spatial_pos_emb/emb_var"].view(4, 4, -1), state["temporal_pos_emb/emb_var"]
    space = torch.einsum("ay,bx,yxd->abd", weigh(h, 4), weigh(w, 4), space.double()).flatten(0, 1)
    time = weigh(t, 5) @ time.double()
    there = state | {"spatial_pos_emb/emb_var": space.float(), "temporal_pos_emb/emb_var": time.float()}
    clip = torch.randn(1, 3, *size)
    with torch.no_grad():
        made_for_it = replace(case, clip=size).read(there)
        assert_close(model.tokens(clip)[0], made_for_it.tokens(clip)[0], atol=TOLERANCE, rtol=0)


def weigh(now: int, source: int) -> Tensor:
    """Weights (now, source) of linear interpolation whose triangle is as wide as what a new place stands for."""
    scale = source / now
    weights = torch.zeros(now, source, dtype=torch.float64)
    for i in range(now):
        for j in range(source):
            weights[i, j] = max(0.0, 1 - abs(j + 0.5 - (i + 0.5) * scale) / max(scale, 1.0))
    return weights / weights.sum(1, keepdim=True)
