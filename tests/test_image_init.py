import errno
import json
import re
from dataclasses import replace
from pathlib import Path
from unittest.mock import MagicMock

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from huggingface_hub import constants, errors
from huggingface_hub.utils import logging
from naming import naming
from safetensors.torch import save_file
from tiny import FAMILIES, configure, tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import Grid, SpaceTimeTransformer, TubeletEmbed, resample
from tubelet.weights import from_reference, image_config, init_from_image, save, to_reference, with_patch
from tubelet.weights.init.image_tokens import source_grid
from tubelet.weights.init.image_weights import image_shape

GRID = (2, 3)  # of tiny's images, in patches
TABLE, PREFIX = "encoders.0.position.tables.0", "encoders.0.prefix"


def timm_state(image: SpaceTimeTransformer) -> dict[str, Tensor]:
    """The weights of our image ViT in timm's names; of a token with a row of positions, half is in either: exact."""
    state = {name: tensor.clone() for name, tensor in to_reference(image, "timm").items()}
    if state["pos_embed"].shape[1] > image.grid(image.config.clip).size:
        for place, name in enumerate(name for name in ("cls_token", "dist_token") if name in state):
            state[name] /= 2
            state["pos_embed"][:, place] = state[name][:, 0]
    return state


def with_settings(model: SpaceTimeTransformer, **settings) -> SpaceTimeTransformer:
    """The model with other settings and the same weights, as far as it has them."""
    config = replace(model.config, family=settings.pop("family", model.config.family))
    own = {"tables": ()} if settings.get("position") in ("sincos", "rotary", "rotary-tiled") else {}
    other = SpaceTimeTransformer(config.with_stages(**own, **settings))
    weights = model.state_dict()
    other.load_state_dict({name: weights[name] for name in other.state_dict()})
    return other.eval()


def pair(family: str, *, image: dict | None = None, kernel: str = "center", **settings):
    """An image ViT and a video model made from it, in double precision."""
    shared = {key: value for key, value in settings.items() if key in ("pool", "norm", "prefix", "keep_aspect")}
    vit, video = tiny("vit", **shared | (image or {})), tiny(family, **settings)
    init_from_image(video, timm_state(vit), kernel=kernel, image_grid=GRID)
    return vit.double(), video.double()


def moving(t: int, channels: int = 3) -> Tensor:
    return torch.randn(2, channels, t, 8, 12, dtype=torch.float64)


def still(t: int, channels: int = 3) -> Tensor:
    return moving(1, channels).expand(-1, -1, t, -1, -1)


def equal(a: Tensor, b: Tensor) -> None:
    assert_close(a, b, atol=1e-6, rtol=0)


def tokens(model: SpaceTimeTransformer, clip: Tensor) -> Tensor:
    return model.tokens(clip)[0]


# --- at first a video model sees what the image model sees ---

# What the image model must be like, and what the video model lacks or makes by itself. Heads shared out between space
# and time (vivit4) come below; windows (swin2) are refused.
ONE_STEP = {
    "vit": ({}, {}),
    "vivit1": ({}, {}),
    "vivit2": ({}, {}),
    "vivit3": ({"pool": "mean"}, {}),
    "timesformer": ({}, {}),
    "vidtrans": ({}, {}),
    "videomae": ({"pool": "mean", "norm": "pooled"}, {}),
    "vjepa2": ({"pool": "mean"}, {"position": "rotary-tiled"}),
    "ast": ({"pool": "cls,dist"}, {}),
    "meta": ({"pool": "mean"}, {"position": "sincos", "norm": "none"}),
}
OF_THEIR_OWN = ("vjepa21", "videoprism", "pe", "pevideo", "dinov3", "siglip2")
OTHER_POOLING = ("vivit2", "vjepa2", "ast")


def test_no_family_is_left_out():
    assert {*ONE_STEP, "vivit4", "swin2", *OF_THEIR_OWN} == set(FAMILIES)


@pytest.mark.parametrize("family", OF_THEIR_OWN)
def test_a_model_that_is_no_plain_vit_starts_from_weights_of_its_own(family):
    model = tiny(family)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    with pytest.raises(ValueError, match=naming(family, "tubelet convert")):
        init_from_image(model, timm_state(tiny("vit")), image_grid=GRID)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


@pytest.mark.parametrize("family", ONE_STEP)
def test_one_time_step_is_the_image_model_on_the_central_frame(family):
    image, own = ONE_STEP[family]
    length = 1 if family in ("vit", "ast") else 3
    vit, video = pair(family, image=image, patch=(length, 4, 4), clip=(length, 8, 12))
    vit, clip, middle = with_settings(vit, **own).double(), moving(length), length // 2
    frame = clip[:, :, middle : middle + 1]
    equal(tokens(video, clip), tokens(vit, frame))
    if family not in OTHER_POOLING:
        equal(video.features(clip), vit.features(frame))


@pytest.mark.parametrize("length", [1, 2, 4])
@pytest.mark.parametrize("embed", ["tubelet", "space-time"])
def test_the_central_frame_of_tubelets_of_any_length(embed, length):
    vit, video = pair("vivit1", embed=embed, patch=(length, 4, 4), clip=(length, 8, 12))
    clip, middle = moving(length), length // 2
    equal(video.features(clip), vit.features(clip[:, :, middle : middle + 1]))


@pytest.mark.parametrize(
    "settings",
    [
        {"prefix": 5},  # registers
        {"pool": "cls,dist"},  # a distilled DeiT
        {"pool": "mean", "prefix": 5},
        {"pool": "mean", "norm": "pooled"},  # timm's fc_norm
        {"pool": "mean", "norm": "pooled", "prefix": 1},
    ],
)
@pytest.mark.parametrize("family", ["vivit1", "timesformer", "vidtrans"])
def test_image_models_of_other_tokens_and_norms(family, settings):
    vit, video = pair(family, clip=(2, 8, 12), **settings)
    clip = moving(2)
    equal(tokens(video, clip), tokens(vit, clip[:, :, 1:]))
    equal(video.features(clip), vit.features(clip[:, :, 1:]))


@pytest.mark.parametrize("position", ["sincos", "rotary", "rotary-tiled"])
def test_positions_that_are_made_for_each_size_are_left(position):
    vit, video = pair("vivit1", position=position, clip=(2, 8, 12))
    clip = moving(2)
    equal(tokens(video, clip), tokens(with_settings(vit, position=position).double(), clip[:, :, 1:]))
    report = init_from_image(video, timm_state(vit), image_grid=GRID)
    assert "positions: left, the model makes its own for each size" in report


@pytest.mark.parametrize("keep_aspect", [False, True])
@pytest.mark.parametrize("family", ["vivit1", "vidtrans", "videomae"])
def test_a_model_of_another_size_is_the_image_model_at_that_size(family, keep_aspect):
    shared = {"pool": "mean", "norm": "pooled", "keep_aspect": keep_aspect}
    vit, video = pair(family, clip=(2, 16, 8), **shared)
    clip = torch.randn(2, 3, 2, 16, 8, dtype=torch.float64)
    equal(video.features(clip), vit.features(clip[:, :, 1:]))


@pytest.mark.parametrize(("length", "pool"), [(2, "cls"), (3, "cls"), (3, "mean")])
def test_the_spatial_token_of_each_step_is_the_image_models_on_its_central_frame(length, pool):
    vit, video = pair("vivit2", pool=pool, patch=(length, 4, 4), clip=(4 * length, 8, 12))
    clip = moving(4 * length)
    spatial, grid = video.encoders[0](*video.embed(clip))
    assert grid == (4, 1, 1)
    for step in range(4):
        frame = clip[:, :, step * length + length // 2][:, :, None]
        equal(spatial[:, step], vit.features(frame))


def test_a_factorised_encoder_that_averages_is_the_mean_over_frames():
    vit, video = pair("vivit2", temporal_depth=0, prefix=5)
    clip = moving(8)
    equal(video.features(clip), torch.stack([vit.features(clip[:, :, i : i + 1]) for i in (1, 3, 5, 7)]).mean(0))


@pytest.mark.parametrize("kernel", ["center", "mean"])
@pytest.mark.parametrize("embed", ["tubelet", "space-time"])
@pytest.mark.parametrize("family", ["vivit1", "vivit3", "timesformer", "vidtrans", "videomae"])
def test_a_still_clip_is_its_frame_where_there_is_no_class_token(family, embed, kernel):
    vit, video = pair(family, pool="mean", norm="pooled", embed=embed, kernel=kernel)
    clip = still(8)
    equal(video.features(clip), vit.features(clip[:, :, :1]))


def test_a_still_clip_of_uniform_frames_is_its_frame():
    vit, video = pair("vivit1", pool="mean", patch=(1, 4, 4), frames=3)
    clip = still(8)
    equal(video.features(clip), vit.features(clip[:, :, :1]))


@pytest.mark.parametrize("prefix", [1, 5])
def test_a_still_clip_is_its_frame_for_divided_attention_with_a_class_token(prefix):
    vit, video = pair("timesformer", prefix=prefix)
    clip = still(8)
    equal(video.features(clip), vit.features(clip[:, :, :1]))


@pytest.mark.parametrize("attend", ["hw,t", "t,hw"])
@pytest.mark.parametrize("family", ["vivit3", "timesformer"])
def test_factorised_attention_starts_as_the_image_model_on_each_frame(family, attend):
    vit, video = pair(family, pool="mean", attend=attend)
    clip = moving(8)
    frames = torch.stack([tokens(vit, clip[:, :, middle : middle + 1]) for middle in (1, 3, 5, 7)], 1)
    equal(tokens(video, clip), frames.flatten(1, 2))


def half_of_the_heads_see_their_own_patch(vit: SpaceTimeTransformer, frame: Tensor) -> Tensor:
    """What becomes of the time heads of Model 4 where there is nothing to see along time: they give their value."""
    encoder = vit.encoders[0]
    x = encoder.position(*vit.embed(frame))
    for block in encoder.blocks:
        attn = block.attns[0]
        q, k, v = (y.unflatten(2, (4, -1)).transpose(1, 2) for y in attn.qkv(block.attn_norms[0](x)).chunk(3, 2))
        seen = torch.cat([v[:, :2], F.scaled_dot_product_attention(q, k, v)[:, 2:]], 1)
        x = x + attn.proj(seen.transpose(1, 2).flatten(2))
        x = x + block.mlp(block.mlp_norm(x))
    return encoder.norm(x)


def test_shared_out_heads_on_one_time_step_or_a_still_clip():
    vit, video = pair("vivit4", image={"pool": "mean"})
    clip = still(8)
    wanted = half_of_the_heads_see_their_own_patch(vit, clip[:, :, :1])
    equal(tokens(video, clip[:, :, :2]), wanted)
    equal(tokens(video, clip), wanted.repeat(1, 4, 1))


def test_a_grey_clip_of_one_channel_is_the_image_model_on_three_equal_ones():
    vit, video = pair("vivit1", channels=1, clip=(2, 8, 12))
    clip = moving(2, channels=1)
    equal(video.features(clip), vit.features(clip[:, :, 1:].expand(-1, 3, -1, -1, -1)))


def test_a_spectrogram_model_of_overlapping_patches_starts_from_a_distilled_image_model():
    stride = (1, 2, 3)
    vit, sound = pair("ast", image={"pool": "cls,dist"}, channels=1, stride=stride)
    overlapping = TubeletEmbed(3, 24, (1, 4, 4), stride).double()
    overlapping.load_state_dict(vit.embed.state_dict())
    mel = moving(1, channels=1)
    wanted, grid = vit.encoders[0].tokens(*overlapping(mel.expand(-1, 3, -1, -1, -1)))
    assert grid == (1, 3, 3)
    equal(tokens(sound, mel), wanted)


@pytest.mark.parametrize("length", [2, 3, 4, 7])
def test_rank_pooling_is_blind_to_a_still_clip_and_sees_the_order_of_frames(length):
    """Its answer is the image kernel on a difference: what comes late, weighed against what comes early."""
    _, video = pair("vivit1", kernel="rank-pooling", patch=(length, 4, 4), clip=(length, 8, 12))
    seen, _ = video.embed(still(length))
    assert_close(seen, video.embed.proj.bias.expand_as(seen), atol=1e-5, rtol=0)
    brighter = torch.arange(float(length), dtype=torch.float64).view(1, 1, -1, 1, 1).expand(2, 3, -1, 8, 12)
    forth, back = (video.embed(clip)[0] - video.embed.proj.bias for clip in (brighter, brighter.flip(2)))
    assert_close(forth, -back, atol=1e-5, rtol=0)
    assert forth.abs().max() > 0.1


@pytest.mark.parametrize("family", ["vivit1", "vivit4", "timesformer"])
def test_positions_are_resampled_to_the_models_own_grid(family):
    vit, video = tiny("vit"), tiny(family, clip=(8, 16, 4))
    report = init_from_image(video, timm_state(vit), image_grid=GRID)
    wanted = resample(vit.state_dict()[TABLE], video.grid((8, 16, 4)))
    table = video.state_dict()[TABLE]
    assert_close(table, wanted.expand_as(table))
    assert any("resampled from 2 x 3 to 4 x 1" in line for line in report)


@pytest.mark.parametrize("family", ["vivit1", "vivit2"])
def test_a_table_for_each_axis_gets_the_nearest_sum(family):
    vit, video = tiny("vit"), tiny(family, position="t+h+w", clip=(8, 12, 16))
    report = init_from_image(video, timm_state(vit), image_grid=GRID)
    h, w = 3, 4
    table = resample(vit.state_dict()[TABLE], Grid(1, h, w)).flatten(0, 2)
    rows, columns = torch.eye(h).repeat_interleave(w, 0), torch.eye(w).repeat(h, 1)
    sums = torch.cat([rows, columns], 1)
    nearest = sums @ torch.linalg.lstsq(sums, table, driver="gelsd").solution
    position = video.encoders[0].position
    assert_close(position.at(Grid(1, h, w))[0], nearest, atol=1e-5, rtol=0)
    lines = [f"positions along {axis}: resampled from 2 x 3 to 3 x 4, the share of {axis} in" for axis in "hw"]
    assert [line for line in report if line.startswith("positions along ") and "to zero" not in line] == [
        f"{line} the nearest sum" for line in lines
    ]


def test_a_square_grid_is_found():
    vit = tiny("vit", clip=(1, 12, 12))
    video = tiny("vivit1", clip=(8, 12, 12))
    init_from_image(video, timm_state(vit))
    assert_close(video.state_dict()[TABLE][3:4], vit.state_dict()[TABLE])


def never() -> None:
    raise AssertionError("nothing needs to be asked")


@pytest.mark.parametrize(
    ("count", "prefix", "grid", "rows"),
    [
        *[(side**2 + 1, 1, (side, side), 1) for side in (2, 3, 5, 7, 8, 12, 14, 16, 18, 24, 27, 28, 32, 37)],
        *[(14**2 + tokens, tokens, (14, 14), tokens) for tokens in (0, 2, 5)],
        *[(14**2, tokens, (14, 14), 0) for tokens in (0, 3, 5)],  # 193 and 191 fill no grid
    ],
)
def test_a_square_grid_is_found_where_rows_can_be_read_in_one_way(count, prefix, grid, rows):
    assert source_grid(count, prefix, None, never) == (Grid(1, *grid), rows)


@pytest.mark.parametrize(
    ("count", "prefix", "without", "with_rows"),
    [
        (25, 1, (5, 5), (4, 6)),
        (196, 1, (14, 14), (13, 15)),
        (1369, 5, (37, 37), (31, 44)),
        (9, 5, (3, 3), (2, 2)),
    ],
)
def test_a_grid_that_rows_do_not_tell_is_asked_for(count, prefix, without, with_rows):
    for say in (None, (2, 7), (0, 0)):
        with pytest.raises(
            ValueError, match=naming(count, prefix, *(f"image_grid={grid}" for grid in (without, with_rows)))
        ):
            source_grid(count, prefix, None, lambda say=say: say)
    for grid, rows in ((without, 0), (with_rows, prefix), (with_rows[::-1], prefix)):
        assert source_grid(count, prefix, grid, never) == (Grid(1, *grid), rows)
        assert source_grid(count, prefix, None, lambda grid=grid: grid) == (Grid(1, *grid), rows)


@pytest.mark.parametrize(("grid", "rows"), [((5, 5), 0), ((4, 6), 1)])
def test_the_config_beside_the_weights_tells_the_grid(grid, rows, tmp_path):
    state = timm_state(tiny("vit", clip=(1, 20, 20)))
    table = state["pos_embed"] = torch.randn(1, 25, 24)
    video = tiny("vivit1", clip=(8, 4 * grid[0], 4 * grid[1]))
    save_file(state, tmp_path / "model.safetensors")
    with pytest.raises(ValueError, match=naming("image_grid=(5, 5)", "image_grid=(4, 6)")):
        init_from_image(video, tmp_path)
    size = {"input_size": [3, 4 * grid[0], 4 * grid[1]]}
    (tmp_path / "config.json").write_text(json.dumps({"pretrained_cfg": size}))
    init_from_image(video, tmp_path)
    assert_close(video.state_dict()[TABLE][0], table[0, rows:].unflatten(0, grid))
    position = table[:, :1] if rows else 0
    assert_close(video.state_dict()[PREFIX], state["cls_token"] + position)


@pytest.mark.parametrize("embed", ["tubelet", "space-time"])
def test_an_image_model_of_another_patch(embed):
    image = timm_state(tiny("vit"))
    same = tiny("vivit3", prefix=1)
    init_from_image(same, image, image_grid=GRID)
    wanted = with_patch(same, (2, 6, 8))
    video = tiny("vivit3", prefix=1, patch=(2, 6, 8), clip=wanted.config.clip, embed=embed)
    report = init_from_image(video, image, image_grid=GRID, resize_patch=True)
    assert report[0] == "tokeniser: taken, at frame 1 of 2, resized from 4 x 4 to 6 x 8 px"
    clip = torch.randn(2, 3, *wanted.config.clip)
    assert_close(tokens(video, clip), tokens(wanted, clip), atol=1e-4, rtol=0)


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


def scenic_model(name: str, clip: tuple[int, int, int], **told) -> SpaceTimeTransformer:
    return from_reference(scenic_tensors(name), "scenic", heads=4, clip=clip, **told)


def scenic_tensors(name: str) -> dict[str, np.ndarray]:
    with np.load(Path(__file__).parent / "golden" / f"scenic_init_{name}.npz") as file:
        return {key: file[key] for key in file.files}


def scenic_image() -> dict[str, Tensor]:
    """Scenic's image ViT in timm's names; its class token and the token's row of positions as they were."""
    image = scenic_model("image_vit", (1, 32, 32))
    state = to_reference(with_settings(image, family="vit", gelu="erf", tables=("hw",)), "timm")
    tensors = scenic_tensors("image_vit")
    state["cls_token"] = torch.from_numpy(tensors["cls"])
    state["pos_embed"] = torch.from_numpy(tensors["Transformer/posembed_input/pos_embedding"])
    return state


def from_scenic_image(theirs: SpaceTimeTransformer, **options) -> dict[str, tuple[Tensor, Tensor]]:
    """What we make of it and what scenic made of it, for all tensors but the head, which scenic sets to zero."""
    ours = SpaceTimeTransformer(theirs.config)
    init_from_image(ours, scenic_image(), **options)
    return {n: (v, theirs.state_dict()[n]) for n, v in ours.state_dict().items() if not n.startswith("head.")}


def different(pairs: dict[str, tuple[Tensor, Tensor]]) -> set[str]:
    return {name for name, (a, b) in pairs.items() if (a - b).abs().max() > 1e-6}


@pytest.mark.parametrize("parity", [None, "scenic"])
@pytest.mark.parametrize(
    ("name", "told", "kernel"),
    [("model1", {}, "center"), ("model1_rank_pooling", {"family": "vivit1"}, "rank-pooling")],
)
def test_scenic_fills_model_1_alike(name, told, kernel, parity):
    theirs = scenic_model(name, (9, 32, 32), **told)
    assert different(from_scenic_image(theirs, kernel=kernel, parity=parity)) == set()


def test_scenic_fills_model_3_alike_and_sets_all_of_its_attention_along_time_to_zero():
    theirs = scenic_model("model3", (9, 32, 32))
    pairs = from_scenic_image(theirs, temporal="zero", parity="scenic")
    assert different(pairs) == set()
    assert not any(ours.any() for name, (ours, _) in pairs.items() if ".attns.1." in name)
    along_time = {name for name in pairs if re.search(r"\.(attns|attn_norms)\.1\.", name)}
    ours = different(from_scenic_image(theirs))
    assert ours < along_time
    assert {name for name in along_time if "proj" not in name} == ours  # the projection is zero with us, too


def test_scenic_copies_attention_along_time_if_not_told_but_not_its_norm():
    theirs = scenic_model("model3", (9, 32, 32))
    ours = {name: a for name, (a, _) in from_scenic_image(theirs, parity="scenic").items()}
    for name, value in ours.items():
        if ".attns.1." in name:
            assert_close(value, ours[name.replace(".attns.1.", ".attns.0.")], atol=0, rtol=0)
        if ".attn_norms.1." in name:
            assert_close(value, torch.full_like(value, float(name.endswith("weight"))), atol=0, rtol=0)


def test_scenic_fills_model_2_alike_and_drops_the_class_token_but_not_its_position():
    theirs = scenic_model("model2_resized", (9, 48, 48))

    def first_encoder(pairs):
        return different({name: pair for name, pair in pairs.items() if not name.startswith("encoders.1.")})

    assert first_encoder(from_scenic_image(theirs, parity="scenic")) == set()
    pairs = from_scenic_image(theirs)
    assert first_encoder(pairs) == {TABLE, PREFIX}  # resampled bicubic, and the class token is taken
    ours, row = pairs[PREFIX]
    assert_close(ours - row, torch.from_numpy(scenic_tensors("image_vit")["cls"]))


def test_parity_says_what_it_does():
    image = timm_state(tiny("vit", clip=(1, 12, 12)))
    report = init_from_image(tiny("vivit2", clip=(8, 16, 16)), image, parity="scenic")
    assert "class token: set to zero as scenic does, its position folded in" in report
    video = tiny("vivit3", clip=(8, 12, 12))
    line = "attention along t in 2 blocks: {}; its norm left fresh"
    assert line.format("copied from space") in init_from_image(video, image, parity="scenic")
    assert line.format("set to zero") in init_from_image(video, image, parity="scenic", temporal="zero")
    assert line.format("left fresh") in init_from_image(video, image, parity="scenic", temporal="fresh")


def test_the_report_names_every_piece():
    image = timm_state(tiny("vit"))
    assert init_from_image(tiny("vivit2"), image, image_grid=GRID) == [
        "tokeniser: taken, at frame 1 of 2",
        "positions along hw: taken, 2 x 3",
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
        "positions along hw: taken, 2 x 3",
        "positions along t: set to zero",
        "class token: left, the model has no prefix",
        "2 blocks: taken",
    ]
    assert report[5] == "attention along t and its norm in 2 blocks: copied from space, their projection set to zero"


@pytest.mark.parametrize(
    ("family", "image", "lines"),
    [
        ("vivit1", {"prefix": 5}, ["class token: taken", "registers: left, the model has no place for it"]),
        (
            "vivit1",
            {"pool": "cls,dist"},
            ["class token: taken, its position folded in", "distillation token: left, the"],
        ),
        ("vivit3", {"prefix": 5}, ["class token: left, the model has no prefix", "registers: left, the model has no"]),
        (
            "ast",
            {"pool": "cls,dist"},
            ["distillation token: taken, its position", "last norm: taken", "norm after pooling: left fresh"],
        ),
        (
            "vjepa2",
            {},
            ["class token: left, the model has no prefix", "last norm: taken", "attentive pooling: left fresh"],
        ),
        ("meta", {}, ["last norm: left, the model has none"]),
        ("videomae", {}, ["last norm: taken (in the image model it comes before pooling)"]),
        ("vivit1", {}, ["positions along thw: taken, 2 x 3, the same at each of 4 time steps"]),
        ("vit", {}, ["positions along hw: taken, 2 x 3"]),
    ],
)
def test_the_report_says_what_was_left(family, image, lines):
    report = init_from_image(tiny(family), timm_state(tiny("vit", **image)), image_grid=GRID)
    for line in lines:
        assert [found for found in report if found.startswith(line)], line


def test_the_class_token_alone_is_taken_from_an_image_model_with_registers():
    vit, video = tiny("vit", prefix=5), tiny("vivit1")
    init_from_image(video, timm_state(vit), image_grid=GRID)
    assert_close(video.state_dict()[PREFIX], vit.state_dict()[PREFIX][:, :1])


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
    ("settings", "options", "values"),
    [
        ({}, {"kernel": "central"}, ("kernel", "'central'", "center", "mean", "rank-pooling")),
        (
            {},
            {"temporal": "zero"},
            ("temporal", "'zero'", "copy-attention-zero-projection", "copy", "fresh"),
        ),
        ({}, {"image_grid": None}, (7, "image_grid=(h, w)")),
        ({}, {"image_grid": (3, 3)}, (7, "image_grid=(3, 3)")),
        ({"embed": "conv"}, {}, ("embed='conv'", "embed='tubelet'", "'space-time'")),
        ({"embed": "depthwise"}, {}, ("embed='depthwise'", "embed='tubelet'")),
        ({"channels": 4}, {}, ("channels", 3, 4)),
        ({"depth": 3}, {}, ("blocks", 2, 3)),
        ({"depth": 1}, {}, ("blocks", 2, 1)),
        ({"dim": 48}, {}, ("width", 24, 48)),
        (
            {"patch": (2, 8, 4)},
            {},
            ("(4, 4)", "(8, 4)", "resize_patch=True"),
        ),
        ({}, {"image_grid": (2, 3, 1)}, (7, "image_grid=(2, 3, 1)")),
        (
            {"patch": (1, 4, 4)},
            {"kernel": "rank-pooling"},
            ("rank pooling", "one"),
        ),
        (
            {"prefix": 2},
            {},
            ("prefix tokens", 1, 2, "prefix=1"),
        ),
        ({}, {"parity": "keras"}, ("parity", "'keras'", "'scenic'")),
        (
            {},
            {"parity": "scenic", "temporal": "copy-attention-zero-projection"},
            ("temporal", "'copy-attention-zero-projection'", "parity='scenic'", "copy", "zero", "fresh"),
        ),
        (
            {"clip": (8, 16, 4)},
            {"parity": "scenic"},
            ("2 x 3", "4 x 1", "parity"),
        ),
        ({"family": "vidtrans"}, {"parity": "scenic"}, ("'vidtrans'", "vivit1", "vivit2", "vivit3", "vivit4")),
        (
            {"family": "swin2"},
            {},
            ("Swin", "family"),
        ),
        ({"family": "ast"}, {}, ("prefix tokens", 1, 2)),
        ({"mlp_dim": 41}, {}, ("encoders.0.blocks.0.mlp.fc1.weight", "(40, 24)", "(41, 24)")),
        ({"attend": "t"}, {}, ("attend='t'", 0, 1)),
        ({"attend": "hw,thw"}, {}, ("attend='hw,thw'", 2, 1)),
    ],
)
def test_what_does_not_fit_is_refused_and_changes_nothing(settings, options, values):
    video = tiny(**({"family": "vivit1"} | settings))
    before = {name: tensor.clone() for name, tensor in video.state_dict().items()}
    with pytest.raises(ValueError, match=naming(*values)):
        init_from_image(video, timm_state(tiny("vit")), **({"image_grid": GRID} | options))
    assert_close(video.state_dict(), before, atol=0, rtol=0)


def test_an_image_model_has_more_or_fewer_prefix_tokens():
    image = timm_state(tiny("vit", prefix=5))
    with pytest.raises(ValueError, match=naming("prefix tokens", 5, 3, "prefix=5", 1)):
        init_from_image(tiny("vivit1", prefix=3), image, image_grid=GRID)


def test_a_hybrid_is_no_plain_image_model():
    image = timm_state(tiny("vit")) | {"patch_embed.backbone.conv.weight": torch.zeros(8, 3, 7, 7)}
    with pytest.raises(ValueError, match=naming("ResNet")):
        init_from_image(tiny("vivit1"), image, image_grid=GRID)


def test_tensors_that_have_no_place_or_are_missing_are_named():
    image = timm_state(tiny("vit"))
    extra = {"blocks.0.attn.q_norm.bias": torch.zeros(6), "norm_pre.bias": torch.zeros(24)}
    with pytest.raises(ValueError, match=naming(2, "blocks.0.attn.q_norm.bias (6,)", "norm_pre.bias (24,)")):
        init_from_image(tiny("vivit1"), image | extra, image_grid=GRID)
    for name in image:
        if not name.startswith(("head.", "cls_token")):
            rest = {key: value for key, value in image.items() if key != name}
            with pytest.raises(ValueError, match=rf"'{re.escape(name)}'|'fc_norm\.weight'"):
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
    with pytest.raises(ValueError, match=naming("'patch_embed.proj.weight'", "blocks.0.attn.proj.bias")):
        image_shape(image)


def test_a_config_that_is_no_json_is_named(tmp_path, image):
    save_file(image, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match=naming(tmp_path / "config.json", "JSON")):
        image_config(tmp_path)


@pytest.fixture
def offline(tmp_path, monkeypatch):
    """A machine without network, with an empty hub cache."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.chdir(tmp_path)
    return tmp_path / "hub"


@pytest.mark.parametrize("name", ["vit_tiny.made_up", "hf-hub:timm/vit_tiny.made_up"])
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
def test_a_hub_that_cannot_be_reached_is_one_message(offline, read, monkeypatch, caplog):
    names = ("'vit_none.x'", "'timm/vit_none.x'", ".safetensors", offline, "HF_HUB_OFFLINE")
    with pytest.raises(ValueError, match=naming("OfflineModeIsEnabled", *names)):
        read("vit_none.x")

    def try_again_and_again(*_):
        for _ in range(5):
            logging.get_logger("huggingface_hub.utils._http").warning("Retrying in 1s [Retry 1/5].")
        raise errors.LocalEntryNotFoundError("not in the cache\nPlease check") from ConnectionError("nobody there")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", try_again_and_again)
    with pytest.raises(ValueError, match=naming("ConnectionError: nobody there", *names)) as caught:
        read("vit_none.x")
    assert "\n" not in str(caught.value)
    logging.get_logger("huggingface_hub.utils._http").warning("heard again")
    assert caplog.messages == ["heard again"]


def test_what_the_hub_does_not_have_is_another_message(offline, monkeypatch):
    def refuse(*_):
        raise errors.RepositoryNotFoundError("404 Client Error.\n\nNot found.", response=MagicMock())

    monkeypatch.setattr("huggingface_hub.hf_hub_download", refuse)
    values = ("'hf-hub:a/b'", "model.safetensors", "'a/b'", "RepositoryNotFoundError: 404 Client Error.")
    with pytest.raises(ValueError, match=naming(*values)):
        init_from_image(tiny("vivit1"), "hf-hub:a/b")


def test_a_full_disk_is_no_fault_of_the_hub(offline, monkeypatch):
    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("huggingface_hub.hf_hub_download", full)
    with pytest.raises(OSError, match="No space left") as caught:
        image_config("vit_none.x")
    assert caught.value.errno == errno.ENOSPC


@pytest.mark.parametrize("name", ["weights.pt", "a/weights.pth", "pytorch_model.bin", "timm/model.ckpt"])
def test_pickled_weights_are_never_opened(offline, video, name):
    with pytest.raises(ValueError, match=naming(name, ".safetensors", "safetensors.torch.save_file")):
        init_from_image(video, name)


def test_files_that_are_missing_broken_or_of_another_kind(offline, video):
    folder = Path.cwd()
    for name in ("none.safetensors", "./none", str(folder / "none"), "a/b/c", "runs/clips", "clips", "clip.mp4", ""):
        with pytest.raises(ValueError, match=naming(".safetensors", "model.safetensors", "hf-hub:owner/name")):
            init_from_image(video, name)
    Path("broken.safetensors").write_bytes(b"\x00" * 30)
    with pytest.raises(ValueError, match=naming("broken.safetensors", "b'{'")):
        init_from_image(video, "broken.safetensors")
    Path("notes.txt").write_text("hello")
    with pytest.raises(ValueError, match=naming("notes.txt", ".safetensors", "safetensors.torch.save_file")):
        init_from_image(video, "notes.txt")
    save(video, "ours.safetensors")
    with pytest.raises(ValueError, match=naming("ours.safetensors", "'patch_embed.proj.weight'", "timm's")):
        init_from_image(video, "ours.safetensors")


def test_a_fresh_model_is_not_the_image_model():
    """The laws above do not hold by chance."""
    vit = tiny("vit").double()
    sizes = {"patch": (2, 4, 4), "clip": (2, 8, 12)}
    config = configure("vivit1", **sizes)
    clip = moving(2)
    fresh = SpaceTimeTransformer(config).double().eval()
    assert not torch.allclose(fresh.features(clip), vit.features(clip[:, :, 1:]), atol=1e-2)
