"""Perception Encoder and its video encoder, in the names of Meta, timm and Hugging Face; and what is none."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from goldens import CASES, TOLERANCE, entries, golden
from naming import naming
from safetensors.torch import save_file
from small_sets import command, pictures, write_image, write_videos
from tiny import tiny
from torch.testing import assert_close

import tubelet
from tubelet.data.clip_spec import ClipSpec
from tubelet.nn import create_model
from tubelet.weights import from_reference, to_reference
from tubelet.weights.dialects.pe import PE_CORE, TIMM_PE
from tubelet.weights.dialects.rename import ForeignState, order_heads
from tubelet.weights.store import read_about

# timm's, with pooling and head; ours has a bias of patches, and the row of the class token is folded into it
PUBLISHED = {
    "pe-Ti/16": (384, 512, 6_141_056),
    "pe-S/16": (384, 512, 23_783_168),
    "pe-B/16": (224, 1024, 93_673_984),
    "pe-L/14": (336, 1024, 317_152_256),
    "pe-G/14": (448, 1280, 1_882_033_920 + 1536),  # without class token
}
SIZES = {"img_size": [24, 36], "patch_size": 6, "embed_dim": 32, "depth": 3, "num_heads": 2, "mlp_ratio": 1.5}
POOLING = {"attn_pool_num_heads": 4, "attn_pool_mlp_ratio": 2.0}
TIMM: dict[str, Any] = {
    "architecture": "vit_pe_core_tiny_patch16_384",
    "num_classes": 10,
    "model_args": {**SIZES, **POOLING, "ref_feat_shape": [4, 6]},
    "pretrained_cfg": {"input_size": [3, 384, 384], "mean": [0.5] * 3, "std": [0.5] * 3, "crop_pct": 1.0},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_published_sizes_by_name(name: str) -> None:
    side, embedding, parameters = PUBLISHED[name]
    with torch.device("meta"):
        model = create_model(name, clip=(1, side, side), num_classes=embedding)
        state = to_reference_shapes(model, "pe-core")
    assert sum(parameter.numel() for parameter in model.parameters()) == parameters
    heads = model.config.stages[0].heads
    assert PE_CORE.published(ForeignState(state)).clip == (1, side, side)
    assert PE_CORE.published(ForeignState(state)).heads == heads


def to_reference_shapes(model: Any, dialect: str) -> dict[str, torch.Tensor]:
    """The names that a dialect's settings are read from, with tensors of one layer alone, on the meta device."""
    stage, (_, patch, _) = model.config.stages[0], model.config.embed.patch
    cells = model.grid(model.config.clip).size
    kernel = torch.empty(stage.dim, 3, patch, patch)
    rows = torch.empty(cells + stage.prefix, stage.dim)
    layers = {f"visual.transformer.resblocks.{i}.ln_1.bias": torch.empty(stage.dim) for i in range(stage.depth)}
    token = {"visual.class_embedding": torch.empty(stage.dim)} if stage.prefix else {}
    return {"visual.conv1.weight": kernel, "visual.positional_embedding": rows, **token, **layers}


def test_models_of_other_sizes_say_no_heads() -> None:
    for name, dialect in (("pe_core_original", PE_CORE), ("timm_pe_spatial", TIMM_PE)):
        found = dialect.published(ForeignState(golden(name)[0]))
        assert (found.heads, found.clip) == (None, None)


# ---- from the command line


def convert(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> str:
    assert command("convert", *arguments) == 0
    return " ".join(capsys.readouterr().out.split())


def test_metas_pickle_becomes_a_model_that_embeds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    state, given, answer = golden("pe_core_original")
    torch.save({"weights": state}, tmp_path / "PE-Core.pt")
    flags = ("--unsafe-pickle", "--heads", "2", "4", "--clip", "1", "24", "24")
    shown = convert(capsys, tmp_path / "PE-Core.pt", tmp_path / "ours", *flags)
    for words in (
        f"{len(state)} tensors of pe-core weights",
        "taken from 'weights'",
        "left: the text tower",
        "none: the head gives 10 numbers, an embedding, shared with the text tower",
        "squashes",
        "tubelet embed",
        "pictures/",
    ):
        assert words in shown, words
    assert "ImageNet" not in shown
    with torch.inference_mode():
        found = tubelet.load(tmp_path / "ours")(given[:, :, None])
    assert_close(found, answer, atol=TOLERANCE, rtol=0)
    spec = ClipSpec.from_json(read_about(tmp_path / "ours")["clip_spec"])
    assert (spec.kind, spec.crop, spec.resize, spec.mean, spec.std) == (
        "image",
        (24, 24),
        (24, 24),
        (0.5,) * 3,
        (0.5,) * 3,
    )
    (tmp_path / "pictures").mkdir()
    write_image(tmp_path / "pictures" / "a.png", pictures(100, [0], frames=1)[0])
    assert command("embed", tmp_path / "ours", tmp_path / "pictures", "--out", tmp_path / "vectors") == 0
    assert tubelet.Embeddings.load(tmp_path / "vectors").vectors.shape == (1, 32)


def test_with_frames_it_takes_videos_and_averages(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    save_file(golden("pe_core_original")[0], tmp_path / "w.safetensors")
    flags = ("--heads", "2", "4", "--clip", "3", "24", "24")
    shown = convert(capsys, tmp_path / "w.safetensors", tmp_path / "ours", *flags)
    assert "3 frames of 24x24 px, 3.33 s apart" in shown
    assert "recordings/" in shown
    tensors = entries("pe_core_original")
    with torch.inference_mode():
        found = tubelet.load(tmp_path / "ours")(tensors["input_video"].transpose(1, 2))
    assert_close(found, tensors["logits_video"], atol=TOLERANCE, rtol=0)
    write_videos(tmp_path / "clips", 1)
    assert command("embed", tmp_path / "ours", tmp_path / "clips", "--out", tmp_path / "vectors") == 0
    vectors = tubelet.Embeddings.load(tmp_path / "vectors").vectors
    assert vectors.shape[1] == 32
    assert np.isfinite(vectors).all()


def published(folder: Path, name: str = "timm_pe_core", **args: Any) -> Path:
    folder.mkdir()
    save_file(golden(name)[0], folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(TIMM | {"model_args": TIMM["model_args"] | args}))
    return folder


def test_timms_config_says_the_heads_of_blocks_and_of_pooling(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shown = convert(capsys, published(tmp_path / "theirs"), tmp_path / "ours")
    assert "an embedding" in shown
    assert "tubelet embed" in shown
    model = tubelet.load(tmp_path / "ours")
    assert (model.config.stages[0].heads, model.config.stages[0].pool_heads) == (2, 4)
    _, given, answer = golden("timm_pe_core")
    with torch.inference_mode():
        assert_close(model(given[:, :, None]), answer, atol=TOLERANCE, rtol=0)


def test_what_is_written_does_not_say_the_heads_of_pooling_either(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    convert(capsys, published(tmp_path / "theirs"), tmp_path / "ours")
    shown = convert(capsys, tmp_path / "ours", tmp_path / "back", "--to", "timm")
    assert "heads 2 of blocks, 4 of pooling" in shown
    convert(capsys, tmp_path / "back", tmp_path / "again", "--heads", "2", "4", "--clip", "1", "24", "36")
    assert_close(
        tubelet.load(tmp_path / "again").state_dict(), tubelet.load(tmp_path / "ours").state_dict(), atol=0, rtol=0
    )


def test_names_of_classes_make_a_classifier_of_it(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    names = tmp_path / "names.txt"
    names.write_text("\n".join(f"class {i}" for i in range(10)))
    shown = convert(capsys, published(tmp_path / "theirs"), tmp_path / "ours", "--classes", names)
    assert "10: class 0, class 1" in shown
    assert "tubelet predict" in shown
    assert "embedding" not in shown


def test_without_a_head_it_embeds_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shown = convert(capsys, published(tmp_path / "theirs", "timm_pe_spatial"), tmp_path / "ours")
    assert "none: features" in shown
    assert "tubelet embed" in shown


@pytest.mark.parametrize("args", [{"ref_feat_shape": [6, 4]}, {"ref_feat_shape": 8}, {"img_size": 48}], ids=str)
def test_a_timm_model_that_learned_on_at_another_size_is_refused(
    args: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("convert", published(tmp_path / "theirs", **args), tmp_path / "ours") == 2
    assert "vit_pe_core_tiny_patch16_384" in capsys.readouterr().err


def test_the_size_in_the_name_is_the_one_its_positions_are_for(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = published(tmp_path / "theirs")
    args = {key: value for key, value in TIMM["model_args"].items() if key != "ref_feat_shape"}
    (folder / "config.json").write_text(json.dumps(TIMM | {"model_args": args}))
    assert command("convert", folder, tmp_path / "ours") == 2
    assert "64 x 64" in capsys.readouterr().err


# ---- what it is not, and what it cannot say


@pytest.mark.parametrize("name", ["pe_core_original", "timm_pe_core"])
def test_clip_has_these_names_too_and_is_refused(name: str) -> None:
    """A last norm, and no pooling by attention."""
    state = {key: value for key, value in golden(name)[0].items() if "attn_pool" not in key}
    with pytest.raises(ValueError, match=naming("CLIP")):
        CASES[name].read(state)


@pytest.mark.parametrize("heads", [16, (16, 4)], ids=str)
def test_heads_are_of_whole_quarters(heads: Any) -> None:
    with pytest.raises(ValueError, match=naming("heads=16", 32)):
        from_reference(golden("timm_pe_core")[0], "timm", heads=heads, clip=(1, 24, 36))


def test_heads_are_those_of_blocks_and_of_pooling() -> None:
    for name in ("timm_pe_core", "hf_pe_video"):
        case = CASES[name]
        with pytest.raises(ValueError, match=naming("heads=(2, 4, 4)")):
            from_reference(golden(name)[0], case.dialect, heads=(2, 4, 4), clip=case.clip)


def test_metas_head_has_no_bias() -> None:
    model = tiny("pe", patch=(1, 4, 4), clip=(1, 8, 12), heads=2, eps=1e-5)
    with pytest.raises(ValueError, match=naming("bias", "'pe-core'")):
        to_reference(model, "pe-core")
    with torch.no_grad():
        model.head.bias.zero_()
    assert to_reference(model, "pe-core")["visual.proj"].shape == (24, 5)


def test_layerscales_are_written_as_ones_where_published_models_have_them() -> None:
    written = to_reference(CASES["timm_pe_spatial"].read(golden("timm_pe_spatial")[0]), "timm")
    assert torch.equal(written["blocks.2.gamma_1"], torch.ones(32))
    assert not any(
        "gamma" in name for name in to_reference(CASES["timm_pe_core"].read(golden("timm_pe_core")[0]), "timm")
    )


@pytest.mark.parametrize("order", [[2, 3, 0, 1], [1, 2, 3, 0], [0, 1, 2, 3]], ids=str)
def test_an_order_of_the_channels_of_a_head_goes_there_and_back(order: list[int]) -> None:
    """Of queries and keys alone: channel `order[i]` of a head becomes its channel i."""
    packed = torch.arange(24.0)  # 2 heads of 4
    rows = order_heads(2, order)
    expected = [4 * head + i for head in range(4) for i in order] + [*range(16, 24)]
    assert rows.forth(packed).tolist() == expected
    assert torch.equal(rows.back(rows.forth(packed)), packed)


# ---- the video encoder

AUDIO_VIDEO = "audio_video_encoder.embedder.video_encoder."
VIDEO: dict[str, Any] = {
    "model_type": "pe_video",
    "video_config": {
        "model_type": "pe_video_encoder",
        "hidden_act": "silu",
        "rms_norm_eps": 1e-5,
        "rope_parameters": {"rope_theta": 20000, "rope_type": "default"},
        "vision_config": {"model_type": "timm_wrapper", **TIMM},
    },
}


def published_video(folder: Path, config: Any = VIDEO, *roots: str) -> Path:
    """As a part of a model of several, by the beginnings of its names in there."""
    folder.mkdir()
    state = golden("hf_pe_video")[0]
    others = {"text_model.layer.weight": torch.zeros(2), "video_head.proj.weight": torch.zeros(2, 2)} if roots else {}
    parts = {root + name: tensor.clone() for root in roots or ("",) for name, tensor in state.items()}
    save_file(parts | others, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(config))
    return folder


@pytest.mark.parametrize(
    "roots", [(), ("video_encoder.",), (AUDIO_VIDEO,), ("video_model.video_encoder.", AUDIO_VIDEO)], ids=len
)
def test_a_video_encoder_alone_or_beside_others(
    roots: tuple[str, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = {"audio_video_config": VIDEO} if any("audio" in root for root in roots) else VIDEO
    shown = convert(capsys, published_video(tmp_path / "theirs", config, *roots), tmp_path / "ours")
    for words in ("of hf-pe-video weights", "the head gives 32 numbers", "16 frames of 24x36 px", "tubelet embed"):
        assert words in shown, words
    assert ("left: of" in shown) == bool(roots)
    _, given, answer = golden("hf_pe_video")
    model = tubelet.load(tmp_path / "ours")
    with torch.inference_mode():
        assert_close(model(given.transpose(1, 2)), answer, atol=TOLERANCE, rtol=0)
    if not roots:
        write_videos(tmp_path / "clips", 1)
        assert command("embed", tmp_path / "ours", tmp_path / "clips", "--out", tmp_path / "vectors") == 0
        assert tubelet.Embeddings.load(tmp_path / "vectors").vectors.shape[1] == 32


@pytest.mark.parametrize(
    ("key", "value"), [("hidden_act", "gelu"), ("rms_norm_eps", 1e-6), ("rope_parameters", {"rope_theta": 10000})]
)
def test_a_video_encoder_of_other_layers_is_refused(
    key: str, value: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = VIDEO | {"video_config": VIDEO["video_config"] | {key: value}}
    assert command("convert", published_video(tmp_path / "theirs", config), tmp_path / "ours") == 2
    assert {"hidden_act": "gelu", "rms_norm_eps": "1e-06"}.get(key, "10000") in capsys.readouterr().err


def test_a_video_encoder_of_ours_goes_there_and_back() -> None:
    model = tiny("pevideo", patch=(1, 4, 4), clip=(4, 8, 12), heads=2, eps=1e-5, resampling="bicubic")
    with torch.no_grad():
        model.head.bias.zero_()
    written = to_reference(model, "hf-pe-video")
    again = from_reference(written, "hf-pe-video", heads=(2, 2), clip=(4, 8, 12))
    clip = torch.randn(2, 3, 4, 8, 12)
    assert_close(again(clip), model(clip), atol=TOLERANCE, rtol=0)


@pytest.mark.parametrize(
    ("settings", "said"),
    [({"num_classes": 0}, "num_classes=0"), ({"norm_kind": "layer"}, "norm_kind='layer'")],
    ids=str,
)
def test_a_video_encoder_that_it_has_no_words_for(settings: dict[str, Any], said: str) -> None:
    own = {"patch": (1, 4, 4), "clip": (4, 8, 12), "heads": 2, "eps": 1e-5, "resampling": "bicubic"}
    with pytest.raises(ValueError, match=said):
        to_reference(tiny("pevideo", **own | settings), "hf-pe-video")


def test_the_published_size_of_the_video_encoder() -> None:
    """Ours: one linear layer of frames instead of two, a bias of the head."""
    with torch.device("meta"):
        model = create_model("pevideo-L/14", clip=(16, 336, 336), num_classes=1792)
    found = sum(parameter.numel() for parameter in model.parameters())
    assert found == 576_615_680 - 1792 * 1792 + 1792


def test_in_bfloat16_the_video_encoder_is_near_and_warns_of_nothing() -> None:
    model = CASES["hf_pe_video"].read(golden("hf_pe_video")[0])
    clip = entries("hf_pe_video")["input"].transpose(1, 2)
    with torch.inference_mode(), torch.autocast("cpu", torch.bfloat16):
        found = model(clip)
    with torch.inference_mode():
        exact = model(clip)
    assert_close(found.float(), exact, atol=0.1 * exact.std().item(), rtol=0)


def test_the_mask_of_clips_that_were_filled_up_is_not_there() -> None:
    """With as many frames as it has, a clip is answered as the original answers the filled one with its mask."""
    tensors = entries("hf_pe_video")
    assert not tensors["mask"].all()
    model = CASES["hf_pe_video"].read(golden("hf_pe_video")[0])
    clip = tensors["input"].transpose(1, 2)
    with torch.inference_mode():
        for row, length in enumerate(tensors["mask"].sum(1).tolist()):
            found = model(clip[row : row + 1, :, : int(length)])
            assert_close(found[0], tensors["logits_masked"][row], atol=TOLERANCE, rtol=0)
