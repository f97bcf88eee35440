import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from huggingface_hub import constants
from safetensors.torch import save_file
from tiny import tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import ModelConfig, SpaceTimeTransformer, resample
from tubelet.weights import from_reference, image_config, init_from_image, save
from tubelet.weights.image import image_shape

GRID = (2, 3)  # of tiny's images, in patches
SHARED = ("norm1", "attn.qkv", "attn.proj", "norm2", "mlp.fc1", "mlp.fc2")
OURS = ("attn_norms.0", "attns.0.qkv", "attns.0.proj", "mlp_norm", "mlp.fc1", "mlp.fc2")


def timm_state(image: SpaceTimeTransformer) -> dict[str, Tensor]:
    """The weights of our image ViT in timm's names: what `from_reference` reads, written backwards."""
    ours = image.state_dict()
    state = {
        "patch_embed.proj.weight": ours["embed.proj.weight"][:, :, 0],
        "pos_embed": ours[TABLE].flatten(0, 2)[None],
    }
    pairs = [("patch_embed.proj", "embed.proj"), ("norm", "encoders.0.norm"), ("head", "head")]
    for i in range(image.config.depth):
        pairs += [(f"blocks.{i}.{a}", f"encoders.0.blocks.{i}.{b}") for a, b in zip(SHARED, OURS, strict=True)]
    for theirs, name in pairs:
        for part in ("weight", "bias"):
            state.setdefault(f"{theirs}.{part}", ours[f"{name}.{part}"])
    if image.config.pool != "mean":
        row = torch.randn(1, 1, image.config.dim)
        state["cls_token"] = ours["encoders.0.prefix"] - row
        state["pos_embed"] = torch.cat([row, state["pos_embed"]], 1)
    return {name: tensor.clone() for name, tensor in state.items()}


TABLE = "encoders.0.position.tables.0"


def pair(family: str, *, pool: str = "cls", image: dict | None = None, kernel: str = "center", **settings):
    """An image ViT and a video model made from it, in double precision."""
    vit = tiny("vit", pool=pool, **(image or {}))
    video = tiny(family, pool=pool, **settings)
    init_from_image(video, timm_state(vit), kernel=kernel, image_grid=GRID)
    return vit.double(), video.double()


def moving(t: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, t, 8, 12, dtype=torch.float64)


def still(t: int, channels: int = 3) -> Tensor:
    return moving(1, channels).expand(-1, -1, t, -1, -1)


def equal(a: Tensor, b: Tensor) -> None:
    assert_close(a, b, atol=1e-6, rtol=0)


# --- at first a video model sees what the image model sees ---


@pytest.mark.parametrize("length", [1, 2, 3, 4])
@pytest.mark.parametrize("embed", ["tubelet", "space-time"])
@pytest.mark.parametrize("family", ["vivit1", "vidtrans", "timesformer"])
def test_one_time_step_is_the_image_model_on_the_central_frame(family, embed, length):
    vit, video = pair(family, embed=embed, patch=(length, 4, 4), clip=(length, 8, 12))
    clip, middle = moving(length), length // 2
    equal(video.features(clip), vit.features(clip[:, :, middle : middle + 1]))


@pytest.mark.parametrize("length", [2, 3])
def test_the_spatial_class_token_of_each_step_is_the_image_models_on_its_central_frame(length):
    vit, video = pair("vivit2", patch=(length, 4, 4), clip=(4 * length, 8, 12))
    clip = moving(4 * length)
    tokens, grid = video.encoders[0](*video.embed(clip))
    assert grid == (4, 1, 1)
    for step in range(4):
        frame = clip[:, :, step * length + length // 2][:, :, None]
        equal(tokens[:, step], vit.features(frame))


@pytest.mark.parametrize("kernel", ["center", "mean"])
@pytest.mark.parametrize("embed", ["tubelet", "space-time"])
@pytest.mark.parametrize("family", ["vivit1", "vivit3", "timesformer", "vidtrans"])
def test_a_still_clip_is_its_frame_where_there_is_no_class_token(family, embed, kernel):
    vit, video = pair(family, pool="mean", embed=embed, kernel=kernel)
    clip = still(8)
    equal(video.features(clip), vit.features(clip[:, :, :1]))


def test_a_still_clip_of_uniform_frames_is_its_frame():
    vit, video = pair("vivit1", pool="mean", patch=(1, 4, 4), frames=3)
    clip = still(8)
    equal(video.features(clip), vit.features(clip[:, :, :1]))


def test_a_still_clip_is_its_frame_for_divided_attention_with_a_class_token():
    vit, video = pair("timesformer")
    clip = still(8)
    equal(video.features(clip), vit.features(clip[:, :, :1]))


@pytest.mark.parametrize("family", ["vivit3", "timesformer"])
def test_factorised_attention_starts_as_the_image_model_on_each_frame(family):
    vit, video = pair(family, pool="mean")
    clip = moving(8)
    frames = [vit.features(clip[:, :, middle : middle + 1]) for middle in (1, 3, 5, 7)]
    equal(video.features(clip), torch.stack(frames).mean(0))


def test_a_grey_clip_of_one_channel_is_the_image_model_on_three_equal_ones():
    vit, video = pair("vivit1", channels=1, clip=(2, 8, 12))
    clip = moving(2, channels=1)
    equal(video.features(clip), vit.features(clip[:, :, 1:].expand(-1, 3, -1, -1, -1)))


@pytest.mark.parametrize("family", ["vivit1", "vivit4", "timesformer"])
def test_positions_are_resampled_to_the_models_own_grid(family):
    vit, video = tiny("vit"), tiny(family, clip=(8, 16, 4))
    report = init_from_image(video, timm_state(vit), image_grid=GRID)
    wanted = resample(vit.state_dict()[TABLE], video.grid((8, 16, 4)))
    table = video.state_dict()[TABLE]
    assert_close(table, wanted.expand_as(table))
    assert any("resampled from 2 x 3 to 4 x 1" in line for line in report)


def test_a_square_grid_is_found():
    vit = tiny("vit", clip=(1, 12, 12))
    video = tiny("vivit1", clip=(8, 12, 12))
    init_from_image(video, timm_state(vit))
    assert_close(video.state_dict()[TABLE][3:4], vit.state_dict()[TABLE])


# --- and from there it learns ---


def time_weights(model: SpaceTimeTransformer) -> dict[str, Tensor]:
    """Each tensor of the attention along time. A key's bias is left out: softmax does not see it."""
    found = {}
    for i, block in enumerate(model.encoders[0].blocks):
        for norm, attn in zip(block.attn_norms, block.attns, strict=True):
            if attn.axes == "t":
                parts = zip("qkv", attn.qkv.weight.chunk(3), attn.qkv.bias.chunk(3), strict=True)
                tensors = {
                    f"{name}.{kind}": value for name, *pair in parts for kind, value in zip("wb", pair, strict=True)
                }
                tensors |= {f"proj.{name}": value for name, value in attn.proj.named_parameters()}
                tensors |= {f"norm.{name}": value for name, value in norm.named_parameters()}
                found |= {f"{i}.{name}": value.detach().clone() for name, value in tensors.items() if name != "k.b"}
    return found


@pytest.mark.parametrize("temporal", ["copy-attention-zero-projection", "copy"])
@pytest.mark.parametrize("family", ["vivit3", "timesformer"])
def test_two_steps_move_every_weight_of_the_attention_along_time(family, temporal):
    video = tiny(family).train()
    init_from_image(video, timm_state(tiny("vit")), temporal=temporal, image_grid=GRID)
    before = time_weights(video)
    optimizer = torch.optim.SGD(video.parameters(), lr=0.1)
    clip = moving(8).float()
    for _ in range(2):
        optimizer.zero_grad()
        torch.nn.functional.cross_entropy(video(clip), torch.tensor([0, 1])).backward()
        optimizer.step()
    after = time_weights(video)
    assert len(before) == 2 * 9
    assert [name for name in before if not (after[name] - before[name]).abs().max() > 1e-6] == []


@pytest.mark.parametrize("family", ["vivit3", "timesformer"])
def test_attention_along_time_starts_as_it_is_told(family):
    for temporal in ("copy-attention-zero-projection", "copy", "fresh"):
        video = tiny(family)
        fresh = time_weights(video)
        init_from_image(video, timm_state(tiny("vit")), temporal=temporal, image_grid=GRID)
        block = video.encoders[0].blocks[1]
        time, space = (0, 1) if family == "timesformer" else (1, 0)
        if temporal == "fresh":
            assert_close(time_weights(video), fresh)
            continue
        assert_close(block.attns[time].qkv.weight, block.attns[space].qkv.weight)
        assert_close(block.attn_norms[time].weight, block.attn_norms[space].weight)
        proj = block.attns[space].proj.weight
        assert_close(block.attns[time].proj.weight, proj if temporal == "copy" else torch.zeros_like(proj))


# --- what is taken, and what is not ---


@pytest.mark.parametrize("model", ["model1", "model3"])
def test_the_reference_program_fills_the_model_alike(model):
    """Scenic's own result (central frame, tiled positions); its head and its attention along time are left out."""

    def scenic(name, clip):
        with np.load(Path(__file__).parent / "golden" / f"scenic_init_{name}.npz") as file:
            return from_reference({key: file[key] for key in file.files}, "scenic", heads=4, clip=clip)

    theirs = scenic(model, (9, 32, 32))
    ours = SpaceTimeTransformer(theirs.config)
    init_from_image(ours, timm_state(scenic("image_vit", (1, 32, 32))))
    for name, value in ours.state_dict().items():
        if not re.match(r"head\.|.*\.attns\.1|.*\.attn_norms\.1", name):
            assert_close(value, theirs.state_dict()[name], atol=1e-6, rtol=0)


def test_the_report_names_every_piece():
    image = timm_state(tiny("vit"))
    assert init_from_image(tiny("vivit2"), image, image_grid=GRID) == [
        "tokeniser: taken, at frame 1 of 2",
        "positions along hw: taken to 2 x 3",
        "class token: taken, its position folded in",
        "2 blocks: taken",
        "last norm: taken",
        "temporal encoder: left fresh",
        "head: left fresh",
        "head.weight, head.bias: left, the image model's classes",
    ]
    report = init_from_image(tiny("timesformer", pool="mean"), image, kernel="mean", image_grid=GRID)
    assert report[:5] == [
        "tokeniser: taken, spread over 2 frames",
        "positions along hw: taken to 2 x 3",
        "positions along t: set to zero",
        "class token: left, the model pools by mean",
        "2 blocks: taken",
    ]
    assert report[5] == "attention along t and its norm in 2 blocks: copied from space, their projection set to zero"


def test_a_class_token_that_the_image_model_lacks_stays_fresh():
    video = tiny("vivit1")
    before = video.encoders[0].prefix.detach().clone()
    report = init_from_image(video, timm_state(tiny("vit", pool="mean")), image_grid=GRID)
    assert_close(video.encoders[0].prefix, before)
    assert "class token: left fresh, the image model has none" in report


def test_a_position_table_without_a_row_for_the_class_token():
    image = timm_state(tiny("vit"))
    image["pos_embed"] = image["pos_embed"][:, 1:]
    video = tiny("vivit1")
    init_from_image(video, image, image_grid=GRID)
    assert_close(video.encoders[0].prefix, image["cls_token"])


def test_layer_scale_is_folded_and_a_norm_after_pooling_is_the_norm():
    image = timm_state(tiny("vit"))
    plain, folded = tiny("vivit3"), tiny("vivit3")
    init_from_image(plain, image, image_grid=GRID)
    for layer, gamma in (("attn.proj", "ls1"), ("mlp.fc2", "ls2")):
        for i in range(2):
            scale = image[f"blocks.{i}.{gamma}.gamma"] = 0.5 + torch.rand(24)
            image[f"blocks.{i}.{layer}.weight"] /= scale[:, None]
            image[f"blocks.{i}.{layer}.bias"] /= scale
    for part in ("weight", "bias"):
        image[f"fc_norm.{part}"] = image.pop(f"norm.{part}")
    report = init_from_image(folded, image, image_grid=GRID)
    assert_close(folded.state_dict(), plain.state_dict())
    assert "last norm: taken (in the image model it comes after mean pooling)" in report


@pytest.mark.parametrize(
    ("settings", "options", "message"),
    [
        ({}, {"kernel": "central"}, "unknown kernel 'central': expected one of center, mean"),
        (
            {},
            {"temporal": "zero"},
            "unknown temporal 'zero': expected one of copy-attention-zero-projection, copy, fresh",
        ),
        ({}, {"image_grid": None}, "has 7 position rows with the class token, no square grid: give image_grid=(h, w)"),
        ({}, {"image_grid": (3, 3)}, "with the class token, not those of image_grid=(3, 3): give image_grid=(h, w)"),
        ({"embed": "conv"}, {}, "does not fit ConvStemEmbed: use embed='tubelet' or 'space-time', or frames="),
        ({"embed": "depthwise"}, {}, "does not fit DepthwiseSeparableEmbed"),
        ({"channels": 4}, {}, "the image model has 3 channels, the video model 4: expected as many"),
        ({"depth": 3}, {}, "the image model has 2 blocks, the video model 3: expected as many"),
        ({"depth": 1}, {}, "the image model has 2 blocks, the video model 1: expected as many"),
        ({"dim": 48}, {}, "the image model has width 24 and patches of (4, 4) px, the video model 48 and (4, 4)"),
        (
            {"patch": (2, 8, 4)},
            {},
            "the image model has width 24 and patches of (4, 4) px, the video model 24 and (8, 4)",
        ),
        ({"mlp_dim": 41}, {}, "shape: encoders.0.blocks.0.mlp.fc1.weight is (40, 24), the model has (41, 24)"),
        ({"attend": "t"}, {}, "attend='t' has 0 steps in space, expected 1 for the image's"),
        ({"attend": "hw,thw"}, {}, "attend='hw,thw' has 2 steps in space"),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(settings, options, message):
    video = tiny("vivit1", **settings)
    before = {name: tensor.clone() for name, tensor in video.state_dict().items()}
    with pytest.raises(ValueError, match=re.escape(message)):
        init_from_image(video, timm_state(tiny("vit")), **({"image_grid": GRID} | options))
    assert_close(video.state_dict(), before, atol=0, rtol=0)


def test_tensors_that_have_no_place_or_are_missing_are_named():
    image = timm_state(tiny("vit"))
    extra = {"dist_token": torch.zeros(1, 1, 24), "norm_pre.bias": torch.zeros(24)}
    message = r"2 tensors have no place .*\n  dist_token \(1, 1, 24\)\n  norm_pre.bias \(24,\)"
    with pytest.raises(ValueError, match=message):
        init_from_image(tiny("vivit1"), image | extra, image_grid=GRID)
    for name in image:
        if not name.startswith(("head.", "cls_token")):
            rest = {key: value for key, value in image.items() if key != name}
            with pytest.raises(ValueError, match=f"no (tensor )?'{re.escape(name)}'|no tensor 'fc_norm.weight'"):
                init_from_image(tiny("vivit1"), rest, image_grid=GRID)


# --- where weights come from ---


@pytest.fixture
def video() -> SpaceTimeTransformer:
    return tiny("vivit1", clip=(8, 12, 12))


@pytest.fixture
def image() -> dict[str, Tensor]:
    return timm_state(tiny("vit", clip=(1, 12, 12)))


CONFIG = {"architecture": "vit", "pretrained_cfg": {"mean": [0.5], "std": [0.5], "input_size": [3, 12, 12], "url": ""}}
INPUT = {"mean": [0.5], "std": [0.5], "input_size": [3, 12, 12]}


def test_a_file_or_its_folder(tmp_path, image, video):
    save_file(image, tmp_path / "model.safetensors")
    assert image_config(tmp_path) == image_config(image) == {}
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    for weights in (tmp_path, str(tmp_path / "model.safetensors")):
        other = tiny("vivit1", clip=(8, 12, 12))
        init_from_image(other, weights)
        init_from_image(video, image)
        assert_close(other.state_dict(), video.state_dict(), atol=0, rtol=0)
        assert image_config(weights) == INPUT


def test_the_shape_of_an_image_model(image):
    assert image_shape(image) == (24, 2, 4)
    del image["patch_embed.proj.weight"]
    with pytest.raises(ValueError, match=r"the weights: no 'patch_embed.proj.weight' \(the names begin with blocks.0"):
        image_shape(image)


def test_a_config_that_is_no_json_is_named(tmp_path, image):
    save_file(image, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=r"config.json: not readable as JSON \(.*\): download it again, or remove it"):
        image_config(tmp_path)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A machine without network, with an empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["vit_tiny.made_up", "timm/vit_tiny.made_up"])
def test_a_hub_name_is_read_from_the_cache(offline, image, video, name):
    folder = offline / "models--timm--vit_tiny.made_up"
    snapshot = folder / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (folder / "refs").mkdir()
    (folder / "refs" / "main").write_text("0" * 40)
    save_file(image, snapshot / "model.safetensors")
    (snapshot / "config.json").write_text(json.dumps(CONFIG))
    init_from_image(video, name)
    assert_close(video.embed.proj.weight[:, :, 1], image["patch_embed.proj.weight"])
    assert image_config(name) == INPUT


@pytest.mark.parametrize("read", [lambda name: init_from_image(tiny("vivit1"), name), image_config])
def test_a_hub_name_that_cannot_be_had_says_what_was_tried(offline, read):
    message = (
        r"'vit_none.x' is no file here, and \w+.\w+ of 'timm/vit_none.x' could not be had from the hub \(.*\): give"
    )
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        read("vit_none.x")


@pytest.mark.parametrize("name", ["weights.pt", "a/weights.pth", "pytorch_model.bin", "timm/model.ckpt"])
def test_pickled_weights_are_never_opened(offline, video, name):
    with pytest.raises(
        ValueError, match=r"expected a .safetensors file, tubelet opens no pickled weights: .*save_file"
    ):
        init_from_image(video, name)


def test_files_that_are_missing_broken_or_of_another_kind(offline, video):
    folder = Path.cwd()
    for name in ("none.safetensors", "./none", str(folder / "none"), "a/b/c", ""):
        with pytest.raises(ValueError, match=r"no such file: expected a .safetensors file, a folder"):
            init_from_image(video, name)
    Path("broken.safetensors").write_bytes(b"\x00" * 30)
    with pytest.raises(ValueError, match=r"broken.safetensors: not a readable safetensors file .*: download it again"):
        init_from_image(video, "broken.safetensors")
    Path("notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=r"notes.txt: expected a .safetensors file"):
        init_from_image(video, "notes.txt")
    save(video, "ours.safetensors")
    with pytest.raises(ValueError, match=r"ours.safetensors: no 'patch_embed.proj.weight' \(.* in timm's names"):
        init_from_image(video, "ours.safetensors")


def test_a_fresh_model_is_not_the_image_model():
    """The laws above do not hold by chance."""
    vit = tiny("vit").double()
    sizes = {"patch": (2, 4, 4), "clip": (2, 8, 12)}
    config = ModelConfig(family="vivit1", dim=24, depth=2, heads=4, mlp_dim=40, num_classes=5, **sizes)
    clip = moving(2)
    fresh = SpaceTimeTransformer(config).double().eval()
    assert not torch.allclose(fresh.features(clip), vit.features(clip[:, :, 1:]), atol=1e-2)
