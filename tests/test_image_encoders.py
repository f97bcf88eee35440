"""DINOv3 and SigLIP 2 as published: names, sizes, settings beside the weights, and what these leave open."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import torch
from goldens import CASES, TOLERANCE, golden
from naming import naming
from safetensors.torch import save_file
from small_sets import command, write_images
from tiny import tiny
from torch import Tensor
from torch.testing import assert_close

import tubelet
from tubelet.nn import create_model
from tubelet.nn.cost import count_parameters
from tubelet.weights import from_reference, recognise, to_reference
from tubelet.weights.dialects.dinov3 import HF_DINOV3, TIMM_DINOV3
from tubelet.weights.dialects.rename import ForeignState
from tubelet.weights.dialects.settings import timm_settings
from tubelet.weights.dialects.siglip2 import PUBLISHED, find_published
from tubelet.weights.store import read_about

DINOV3 = {"patch": (1, 4, 4), "clip": (1, 8, 12), "heads": 2, "eps": 1e-5, "num_classes": 0}


# ---- sizes


# of the published weights, in timm; those without biases of query and value for 7B alone
@pytest.mark.parametrize(
    ("size", "count"),
    [
        ("S", 21_596_160),
        ("S+", 28_692_480),
        ("B", 85_659_648),
        ("L", 303_128_576),
        ("H+", 840_591_360),
        ("7B", 6_716_030_976),
    ],
)
def test_dinov3_has_as_many_parameters_as_published_but_for_layerscale_and_biases_of_keys(
    size: str, count: int
) -> None:
    with torch.device("meta"):
        model = create_model(f"dinov3-{size}/16", num_classes=0)
    stage = model.config.stages[0]
    row = stage.dim * stage.depth
    assert count_parameters(model) == count - 2 * row + row * stage.qkv_bias


@pytest.mark.parametrize(
    ("size", "px", "count"),
    [("B", 224, 92_884_224), ("L", 256, 315_956_224), ("So", 256, 427_888_064), ("g", 256, 1_163_168_256)],
)
def test_siglip2_has_as_many_parameters_as_published(size: str, px: int, count: int) -> None:
    with torch.device("meta"):
        assert count_parameters(create_model(f"siglip2-{size}/16", clip=(1, px, px), num_classes=0)) == count


# ---- DINOv3


def test_names_in_memory_are_those_on_disk() -> None:
    state, given, answer = golden("hf_dinov3")
    in_memory = {re.sub(r"^layer\.", "model.layer.", name): value for name, value in state.items()}
    assert in_memory.keys() != state.keys()
    for wrapper in ("", "module.", "model."):
        wrapped = {wrapper + name: value for name, value in in_memory.items()}
        assert recognise(wrapped) == "hf-dinov3"
        case = CASES["hf_dinov3"]
        assert_close(case.answered(case.read(wrapped), given), answer, atol=TOLERANCE, rtol=0)


def test_a_bias_of_the_values_alone() -> None:
    state = golden("hf_dinov3")[0]
    zeros = {name: torch.zeros_like(value) for name, value in state.items() if name.endswith("q_proj.bias")}
    case = CASES["hf_dinov3"]
    rest = {name: value for name, value in state.items() if name not in zeros}
    assert_close(case.read(rest).state_dict(), case.read(state | zeros).state_dict())
    del rest["layer.1.attention.v_proj.bias"]
    with pytest.raises(ValueError, match=naming("'layer.1.attention.v_proj.bias'")):
        case.read(rest)


def test_biases_of_keys_have_names_at_hugging_face_alone() -> None:
    model = tiny("dinov3", **DINOV3)
    assert "layer.1.attention.k_proj.bias" in to_reference(model, "hf-dinov3")
    with pytest.raises(ValueError, match=naming("'timm'", "keys")):
        to_reference(model, "timm")
    with torch.no_grad():
        for block in model.encoders[0].blocks:
            block.attns[0].qkv.bias.chunk(3)[1].zero_()
    assert "layer.1.attention.k_proj.bias" not in to_reference(model, "hf-dinov3")
    written = to_reference(model, "timm")
    assert {name for name in written if "bias" in name and "attn" in name} == {
        f"blocks.{i}.attn.{part}" for i in range(2) for part in ("q_bias", "v_bias", "proj.bias")
    }
    again = from_reference(written, "timm", heads=2, clip=(1, 8, 12))
    assert_close(again.state_dict(), model.state_dict())


@pytest.mark.parametrize("heads", [1, 3, 16])
def test_heads_that_positions_cannot_turn_are_refused(heads: int) -> None:
    for name in ("hf_dinov3", "timm_dinov3"):
        if 32 % heads or 32 // heads % 4:
            with pytest.raises(ValueError, match=naming(f"heads={heads}", 32)):
                from_reference(golden(name)[0], CASES[name].dialect, heads=heads, clip=(1, 24, 40))


@pytest.mark.parametrize(
    ("dim", "depth", "heads"),
    [(192, 12, 3), (384, 12, 6), (768, 12, 12), (1024, 24, 16), (1280, 32, 20), (4096, 40, 32), (96, 4, None)],
)
def test_heads_of_published_sizes_are_known(dim: int, depth: int, heads: int | None) -> None:
    for dialect, kernel, layer, px in (
        (HF_DINOV3, "embeddings.patch_embeddings", "layer.{}.norm1.bias", 224),
        (TIMM_DINOV3, "patch_embed.proj", "blocks.{}.norm1.bias", 256),
    ):
        state = {layer.format(i): torch.empty(0) for i in range(depth)} | {f"{kernel}.bias": torch.empty(dim)}
        found = dialect.published(ForeignState(state))
        assert (found.heads, found.clip) == (heads, (1, px, px) if heads else None)


# ---- the GELU of SigLIP in timm


@pytest.mark.parametrize(
    ("architecture", "heads", "gelu"),
    [
        ("vit_base_patch16_siglip_512", 12, "erf"),
        ("vit_base_patch16_siglip_gap_512", 12, "erf"),
        ("vit_base_patch32_siglip_256", 12, "tanh"),
        ("vit_base_patch32_siglip_gap_256", 12, "tanh"),
        ("vit_large_patch16_siglip_384", 16, "erf"),
        ("vit_large_patch16_siglip_512", 16, "tanh"),
        ("vit_large_patch16_siglip_gap_256", 16, "erf"),
        ("vit_large_patch16_siglip_gap_512", 16, "tanh"),
        ("vit_so400m_patch14_siglip_224", 16, "erf"),
        ("vit_so400m_patch14_siglip_gap_896", 16, "erf"),
        ("vit_so400m_patch16_siglip_256", 16, "tanh"),
        ("vit_so400m_patch16_siglip_gap_512", 16, "tanh"),
        ("vit_giantopt_patch16_siglip_384", 16, "tanh"),
        ("vit_giantopt_patch16_siglip_gap_384", 16, "tanh"),
        ("vit_base_patch16_224", 12, None),
    ],
)
def test_timms_config_says_the_gelu(architecture: str, heads: int, gelu: str | None) -> None:
    said = timm_settings({"architecture": architecture})
    assert (said.heads, said.gelu) == (heads, gelu)
    assert timm_settings({"architecture": architecture, "model_args": {"act_layer": "gelu_tanh"}}).gelu == "tanh"


def sized(dim: int, depth: int, patch: int, rows: int) -> ForeignState:
    """Names and shapes of a SigLIP in timm's names, as far as its size goes."""
    state = {f"blocks.{i}.norm1.bias": torch.empty(0) for i in range(depth)}
    kernel = torch.empty(dim, 3, patch, patch, device="meta")
    return ForeignState(
        state | {"patch_embed.proj.weight": kernel, "pos_embed": torch.empty(1, rows, dim, device="meta")}
    )


def test_published_sizes_say_the_gelu_and_others_nothing() -> None:
    told = {}
    for size, (heads, sides) in PUBLISHED.items():
        for side, gelu in sides.items():
            said = find_published(sized(*size, (side // size[2]) ** 2))
            assert (said.heads, said.clip, said.gelu) == (heads, (1, side, side), gelu)
            told[size, side] = gelu
    tanh = {pair for pair, gelu in told.items() if gelu == "tanh"}
    # as the architectures of these sizes have it in timm 1.0.31
    assert tanh == {
        ((768, 12, 32), 256),
        ((1024, 24, 16), 512),
        *(((1152, 27, 16), side) for side in (256, 384, 512)),
        *(((1536, 40, 16), side) for side in (256, 384)),
    }
    for size in ((768, 12, 16, 197), (768, 12, 16, 100), (768, 11, 16, 196), (384, 12, 16, 196), (1152, 27, 15, 256)):
        assert find_published(sized(*size)).gelu is None


def test_a_size_that_is_not_published_is_asked_for_its_gelu() -> None:
    state, given, answer = golden("timm_siglip2")
    settings = {"heads": 4, "clip": (1, 24, 40)}
    with pytest.raises(ValueError, match=naming("gelu='erf'", "'tanh'", "--gelu", 32, 2, 8, 15)):
        from_reference(state, "timm", **settings)
    with pytest.raises(ValueError, match=naming("'relu'", "erf", "tanh")):
        from_reference(state, "timm", **settings, gelu="relu")
    with torch.no_grad():
        exact = from_reference(state, "timm", **settings, gelu="erf")(given[:, :, None])
    assert (exact - answer).abs().max() > TOLERANCE


def test_what_gelu_a_model_has_must_not_be_told_otherwise() -> None:
    for name, gelu in (("hf_siglip2", "erf"), ("hf_dinov3", "tanh"), ("hf_vivit", "erf"), ("timm_pe_core", "tanh")):
        case = CASES[name]
        with pytest.raises(ValueError, match=naming(f"gelu='{gelu}'", "'tanh'", "'erf'")):
            from_reference(golden(name)[0], case.dialect, **case.settings(), gelu=gelu)


# ---- Hugging Face's SigLIP 2


def test_naflex_takes_pictures_of_every_shape_at_once() -> None:
    """Two pictures in one padded batch with theirs; ours take them as they are."""
    model = CASES["hf_siglip2_naflex"].read(golden("hf_siglip2_naflex")[0])
    clips = [torch.randn(3, 1, 8 * h, 8 * w) for h, w in ((3, 5), (2, 6), (3, 5))]
    with torch.no_grad():
        together = model.features(clips)
        assert_close(together, torch.cat([model.features(clip[None]) for clip in clips]), atol=1e-5, rtol=0)


def test_tables_are_square() -> None:
    for name in ("hf_siglip2", "hf_siglip2_naflex"):
        with pytest.raises(ValueError, match=naming("square", "2 x 8")):
            from_reference(golden(name)[0], "hf-siglip2", heads=4, clip=(1, 16, 64))


def test_a_kernel_for_flat_patches_that_are_not_square_is_refused() -> None:
    state = golden("hf_siglip2_naflex")[0]
    kernel = "embeddings.patch_embedding.weight"
    for size in (0, 3 * 8 * 6, 64):
        with pytest.raises(ValueError, match=naming(f"'{kernel}'", f"(32, {size})")):
            from_reference(state | {kernel: torch.zeros(32, size)}, "hf-siglip2", heads=4, clip=(1, 32, 32))


# ---- `tubelet convert` on a folder as published


def with_text_tower(state: dict[str, Tensor]) -> dict[str, Tensor]:
    beside = {"text_model.embeddings.token_embedding.weight": torch.zeros(9, 32), "logit_scale": torch.zeros(1)}
    return {f"vision_model.{name}": value for name, value in state.items()} | beside | {"logit_bias": torch.zeros(1)}


TOWER = {"hidden_size": 32, "num_attention_heads": 4, "image_size": 32, "hidden_act": "gelu_pytorch_tanh"}
DINO = {"model_type": "dinov3_vit", "num_attention_heads": 2, "image_size": [24, 40], "layer_norm_eps": 1e-5}
TIMM = {
    "model_args": {"num_heads": 2, "img_size": [24, 40]},
    "pretrained_cfg": {"mean": [0.4, 0.4, 0.3], "std": [0.2] * 3},
}
# what lies beside the weights, and the licence that is said
FOLDERS: dict[str, tuple[dict[str, Any], str]] = {
    "hf_dinov3": (DINO | {"hidden_act": "gelu", "rope_theta": 100.0}, "DINOv3 License"),
    "hf_dinov3_gated": (DINO | {"hidden_act": "silu", "use_gated_mlp": True}, "DINOv3 License"),
    "timm_dinov3": (TIMM | {"architecture": "vit_small_patch16_dinov3_qkvb"}, "DINOv3 License"),
    "timm_dinov3_gated": (
        TIMM | {"architecture": "vit_x", "pretrained_cfg": {"license": "fair-noncommercial-research-license"}},
        "fair-noncommercial-research-license",
    ),
    "hf_siglip2": ({"model_type": "siglip", "vision_config": TOWER, "text_config": {}}, "Apache-2.0"),
    "hf_siglip2_naflex": (TOWER | {"model_type": "siglip2_vision_model"}, "Apache-2.0"),
    "timm_siglip2": (
        {**TIMM, "model_args": {"num_heads": 4, "img_size": [24, 40]}, "architecture": "vit_so400m_patch16_siglip_256"},
        "Apache-2.0",
    ),
}


def publish(name: str, folder: Path, **changes: Any) -> Path:
    folder.mkdir(parents=True)
    state = golden(name)[0]
    save_file(with_text_tower(state) if name == "hf_siglip2" else state, folder / "model.safetensors")
    (folder / "config.json").write_text(json.dumps(FOLDERS[name][0] | changes))
    return folder


@pytest.mark.parametrize("name", FOLDERS)
def test_a_folder_as_published_is_converted_and_embeds(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("convert", publish(name, tmp_path / "theirs"), tmp_path / "ours") == 0
    shown = " ".join(capsys.readouterr().out.split())
    case, (_, given, answer) = CASES[name], golden(name)
    model = tubelet.load(tmp_path / "ours")
    assert_close(case.answered(model, given), answer, atol=TOLERANCE, rtol=0)
    assert model.config.family == case.family
    assert model.config.clip == case.clip
    about = read_about(tmp_path / "ours" / "model.safetensors")
    assert about["converted"]["dialect"] == case.dialect
    (terms,) = about["terms"]
    licence = FOLDERS[name][1]
    assert terms["licence"] == licence
    assert terms["gated"] == name.startswith("hf_dinov3")
    assert terms["commercial"] == ("noncommercial" not in licence)
    assert licence in shown
    assert about["clip_spec"]["kind"] == "image"
    assert about["clip_spec"]["mean"] == pytest.approx(
        [0.4, 0.4, 0.3]
        if name in ("timm_dinov3", "timm_siglip2")
        else [0.5] * 3
        if "siglip" in name
        else model.config.mean
    )
    write_images(tmp_path / "pictures", 1)
    assert command("embed", tmp_path / "ours", tmp_path / "pictures", "--out", tmp_path / "embedded") == 0
    assert tubelet.Embeddings.load(tmp_path / "embedded").vectors.shape[1] == 32


@pytest.mark.parametrize(
    ("name", "changes", "values"),
    [
        ("hf_dinov3", {"rope_theta": 10_000.0}, ("rope_theta", 10000.0, 100.0)),
        ("hf_dinov3", {"layer_norm_eps": 1e-6}, ("layer_norm_eps", 1e-6, 1e-5)),
        ("hf_dinov3", {"hidden_act": "silu"}, ("hidden_act", "'silu'", "'erf'")),
        ("hf_dinov3_gated", {"hidden_act": "gelu"}, ("hidden_act", "'gelu'", "'silu'")),
        ("hf_dinov3", {"model_type": "dinov2"}, ("'dinov2'", "'dinov3_vit'")),
        ("hf_siglip2", {"model_type": "clip"}, ("'clip'", "'siglip'")),
        ("hf_siglip2", {"vision_config": TOWER | {"hidden_act": "gelu"}}, ("hidden_act", "'erf'", "'tanh'")),
        ("hf_siglip2", {"vision_config": {}}, ("heads", "--heads N")),
        ("timm_siglip2", {"architecture": "vit_base_patch16_x"}, ("gelu='erf'", "--gelu")),
        ("timm_siglip2", {"architecture": "vit_large_patch14_clip_quickgelu_224"}, ("GELU",)),
    ],
)
def test_settings_that_are_not_of_published_models_are_refused(
    name: str, changes: dict[str, Any], values: tuple[object, ...], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert command("convert", publish(name, tmp_path / "theirs", **changes), tmp_path / "ours") == 2
    assert re.search(naming(*values), capsys.readouterr().err)
    assert not (tmp_path / "ours").exists()


def test_a_gelu_on_the_command_line_counts(tmp_path: Path) -> None:
    folder = publish("timm_siglip2", tmp_path / "theirs", architecture="vit_base_patch16_siglip_256")
    for gelu, flags in (("erf", ()), ("tanh", ("--gelu", "tanh"))):
        assert command("convert", folder, tmp_path / gelu, *flags) == 0
        assert tubelet.load(tmp_path / gelu).config.stages[0].gelu == gelu


def test_a_text_tower_beside_it_is_left() -> None:
    state, given, answer = golden("hf_siglip2")
    taken = CASES["hf_siglip2"].taken(with_text_tower(state))
    left = {move.theirs: move.how for move in taken.moves if not move.ours}
    assert left.keys() == {name for name in with_text_tower(state) if not name.startswith("vision_model.")}
    assert left["text_model.embeddings.token_embedding.weight"] == "left: the text tower"
    assert_close(CASES["hf_siglip2"].answered(taken.model, given), answer, atol=TOLERANCE, rtol=0)


def test_a_square_table_needs_no_config(tmp_path: Path) -> None:
    save_file(golden("hf_siglip2")[0], tmp_path / "model.safetensors")
    assert command("convert", tmp_path / "model.safetensors", tmp_path / "ours", "--heads", "4") == 0
    assert tubelet.load(tmp_path / "ours").config.clip == (1, 32, 32)


@pytest.mark.parametrize("name", ["hf_dinov3", "timm_siglip2"])
def test_of_a_video_each_frame_is_seen_and_the_mean_is_the_answer(name: str, tmp_path: Path) -> None:
    flags = ("--clip", "4", "24", "40")
    assert command("convert", publish(name, tmp_path / "theirs"), tmp_path / "ours", *flags) == 0
    spec = read_about(tmp_path / "ours" / "model.safetensors")["clip_spec"]
    assert (spec["kind"], spec["frames"], spec["seconds_between_frames"]) == ("video", 4, 2.5)
    model, clip = tubelet.load(tmp_path / "ours"), torch.randn(1, 3, 4, 24, 40)
    with torch.no_grad():
        frames = model.features(clip[0].transpose(0, 1)[:, :, None])
        assert_close(model.features(clip)[0], frames.mean(0), atol=1e-5, rtol=0)
