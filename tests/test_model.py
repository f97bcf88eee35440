import re
from dataclasses import replace

import pytest
import torch
from tiny import VIDEO, clip_for, tiny
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from tubelet.nn import (
    FAMILIES,
    SIZES,
    Attention,
    DropPath,
    ModelConfig,
    SpaceTimeTransformer,
    create_model,
    list_models,
)
from tubelet.nn.model import rising

# arXiv 2103.15691 and scenic's code: B/16x2, 32 frames of 224 x 224 px, 400 classes
PAPER = {
    "vivit1": (88_954_000, 451.5, {}),
    "vivit2": (115_062_928, 283.3, {}),
    "vivit3": (117_319_312, 371.1, {}),
    "vivit4": (88_952_464, 276.2, {}),
    "vivit2 averaging frames": (86_696_080, 282.9, {"temporal_depth": 0}),
}


@pytest.mark.parametrize("model", PAPER)
def test_parameters_and_macs_of_the_paper(model):
    parameters, gmacs, settings = PAPER[model]
    with torch.device("meta"):
        ours = create_model(f"{model.split()[0]}-B/16x2", clip=(32, 224, 224), num_classes=400, **settings)
        clip = torch.empty(1, 3, 32, 224, 224)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        ours(clip)
    # the position row of a class token is folded into the token
    folded = sum(parameter.numel() for name, parameter in ours.named_parameters() if name.endswith("prefix"))
    assert sum(parameter.numel() for parameter in ours.parameters()) + folded == parameters
    assert counter.get_total_flops() / 2e9 == pytest.approx(gmacs, rel=0.01)


def test_every_listed_model_can_be_made():
    with torch.device("meta"):
        for name in list_models():
            family, size = name.split("-")
            model = create_model(f"{name}/16", clip=(1 if family == "vit" else 2, 32, 48), num_classes=3)
            assert (model.config.dim, model.config.depth, model.config.heads) == SIZES[size]
            assert model.config.family == family
    assert "vivit2-B" in list_models()
    assert "vivit4-Ti" not in list_models()  # three heads cannot be shared out


def test_the_name_says_patch_and_tubelet():
    with torch.device("meta"):
        assert create_model("vivit1-P/16x4").config.patch == (4, 16, 16)
        assert create_model("vivit1-P/8").config.patch == (1, 8, 8)
        assert create_model("vit-P/16").config.clip == (1, 224, 224)


@pytest.mark.parametrize("family", FAMILIES)
def test_any_rectangular_size_runs(family):
    model, length = tiny(family), 1 if family == "vit" else 2
    for steps, rows, columns in ((1, 1, 1), (1, 5, 2), (3, 2, 7), (6, 4, 1)):
        clip = torch.randn(2, 3, length if family == "vit" else length * steps, 4 * rows, 4 * columns)
        out = model(clip)
        assert out.shape == (2, 5)
        assert out.isfinite().all()


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_features_and_logits_agree_in_shape_and_value(family):
    model = tiny(family)
    clip = clip_for(model)
    tokens, grid = model.tokens(clip)
    prefix = 0 if model.encoders[0].prefix is None else model.encoders[0].prefix.shape[1]
    assert grid == model.grid(model.input_size) == ((1, 2, 3) if family == "vit" else (4, 2, 3))
    assert tokens.shape == (2, prefix + grid.size, 24)
    assert model.features(clip).shape == (2, 24)
    assert_close(model(clip), model.head(model.features(clip)))
    assert_close(model(clip)[:1], model(clip[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", VIDEO)
def test_the_order_of_the_frames_matters(family):
    model = tiny(family)
    clip = clip_for(model)
    assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-3)


@pytest.mark.parametrize("family", ["vivit2", "vivit3", "vivit4", "timesformer", "vidtrans"])
def test_without_positions_along_time_the_order_of_the_tubelets_does_not_matter(family):
    model = tiny(family)
    with torch.no_grad():
        for encoder in model.encoders:
            for table in encoder.position.tables:
                table.copy_(table.mean(0, keepdim=True).expand_as(table))
    clip = clip_for(model)
    moved = clip.unflatten(2, (4, 2))[:, :, [2, 0, 3, 1]].flatten(2, 3)
    assert_close(model(moved), model(clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_setting_the_input_size_is_lossless(family):
    model = tiny(family)
    clip, parameters = clip_for(model), list(model.parameters())
    before = model(clip)
    native = model.input_size
    model.set_input_size((native[0], 16, 4))
    assert model.input_size == (native[0], 16, 4)
    model.set_input_size(native)
    assert_close(model(clip), before, atol=0, rtol=0)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_clips_are_normalised_with_the_models_own_mean_and_std(channels):
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    model = tiny("vivit2", channels=channels, mean=mean, std=std)
    clip = torch.randint(0, 256, (2, channels, *model.input_size), dtype=torch.uint8)
    shape = (-1, 1, 1, 1)
    normalised = (clip / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    assert_close(model(clip), model(normalised), atol=1e-5, rtol=1e-5)


SETTINGS_THAT_ACT = [
    {"attend": "hw,t"},
    {"attend": "t|hw", "pool": "mean"},
    {"pool": "mean"},
    {"temporal_depth": 0},
    {"temporal_depth": 2},
    {"embed": "space-time"},
    {"embed": "depthwise"},
    {"embed": "conv"},
    {"stride": (1, 4, 4)},
    {"patch": (1, 4, 4), "frames": 3},
    {"eps": 1e-2},
    {"gelu": "tanh"},
    {"mean": (0.1,)},
    {"std": (0.1, 0.2, 0.3)},
]


@pytest.mark.parametrize("settings", SETTINGS_THAT_ACT, ids=str)
def test_each_setting_changes_the_answer(settings):
    plain, changed = tiny("vivit2"), tiny("vivit2", **settings)
    shapes = {name: tensor.shape for name, tensor in changed.state_dict().items()}
    if shapes == {name: tensor.shape for name, tensor in plain.state_dict().items()}:
        changed.load_state_dict(plain.state_dict())  # so that nothing but the setting differs
    clip = torch.randint(0, 256, (2, 3, *plain.input_size), dtype=torch.uint8)
    assert not torch.allclose(plain(clip), changed(clip), atol=1e-6)


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"drop_path": 0.5}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_regularisation_acts_in_training_only(family, settings):
    plain, model = tiny(family), tiny(family, **settings)
    clip = clip_for(model, batch=8)
    assert_close(model(clip), plain(clip), atol=0, rtol=0)
    torch.manual_seed(0)
    model.train()
    first, second = model(clip), model(clip)
    assert not torch.allclose(first, second)
    assert_close(plain.train()(clip), plain(clip), atol=0, rtol=0)


@pytest.mark.parametrize("kind", [torch.nn.Dropout, DropPath, Attention])
def test_dropout_acts_at_each_of_its_places(kind):
    model = tiny("vivit2", dropout=0.5, drop_path=0.5)
    clip = clip_for(model, batch=8)
    model.encoders[0].blocks[0].drop_path.rate = model.encoders[1].blocks[0].drop_path.rate = 0.5
    places = [module for module in model.modules() if isinstance(module, kind)]
    assert len(places) >= 3
    for place in places:
        place.training = True
        torch.manual_seed(0)
        assert not torch.allclose(model(clip), model(clip))
        place.training = False
        assert_close(model(clip), model(clip), atol=0, rtol=0)


def test_stochastic_depth_rises_to_its_rate_in_each_encoder():
    assert rising(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert rising(0.3, 1) == [0.0]
    encoders = tiny("vivit2", drop_path=0.3, depth=4, temporal_depth=3).encoders
    rates = [[block.drop_path.rate for block in encoder.blocks] for encoder in encoders]
    assert rates == [pytest.approx([0.0, 0.1, 0.2, 0.3]), pytest.approx([0.0, 0.15, 0.3])]


def fresh(family: str, **settings) -> SpaceTimeTransformer:
    torch.manual_seed(0)
    sizes = {"patch": (1, 4, 4), "clip": (1, 8, 12)} if family == "vit" else {"patch": (2, 4, 4), "clip": (6, 8, 12)}
    config = ModelConfig(family=family, dim=24, depth=2, heads=4, mlp_dim=48, num_classes=5, **sizes, **settings)
    return SpaceTimeTransformer(config).train()


@pytest.mark.parametrize("embed", ["tubelet", "space-time", "depthwise", "conv"])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_model_is_undecided_and_every_parameter_has_a_gradient_from_the_first_step(family, embed):
    model = fresh(family, embed=embed)
    logits = model(clip_for(model, batch=4))
    assert 0.01 < logits.std() < 0.3
    torch.nn.functional.cross_entropy(logits, torch.tensor([0, 1, 2, 3])).backward()
    assert [name for name, parameter in model.named_parameters() if not parameter.grad.abs().max() > 1e-9] == []


def test_queries_keys_and_values_start_each_as_a_layer_by_itself():
    model = fresh("vivit1")
    for part in model.encoders[0].blocks[0].attns[0].qkv.weight.chunk(3):
        bound = (6 / (24 + 24)) ** 0.5
        assert 0.9 * bound < part.abs().max() <= bound
    kernel, bound = model.embed.proj.weight, (6 / (24 + 3 * 2 * 4 * 4)) ** 0.5
    assert 0.9 * bound < kernel.abs().max() <= bound


@pytest.mark.parametrize("family", FAMILIES)
def test_export_with_any_batch_equals_eager(family):
    model = tiny(family)
    batch = torch.export.Dim("batch")
    program = torch.export.export(model, (clip_for(model),), dynamic_shapes={"clip": {0: batch}}).module()
    for size in (1, 5):
        clip = clip_for(model, batch=size)
        assert_close(program(clip), model(clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["vivit2", "timesformer"])
def test_compile_has_no_graph_break(family):
    model = tiny(family)
    clip = clip_for(model)
    torch.compiler.reset()
    compiled = torch.compile(model, backend="aot_eager", fullgraph=True)
    assert_close(compiled(clip), model(clip), atol=1e-5, rtol=1e-5)


def test_settings_travel_as_json():
    config = tiny("vivit2", stride=(1, 4, 4), mean=(0.1, 0.2, 0.3)).config
    values = {key: list(value) if isinstance(value, tuple) else value for key, value in config.to_json().items()}
    assert ModelConfig.from_json(values) == config
    with pytest.raises(ValueError, match="unknown or missing: colour, dim: made by another version"):
        ModelConfig.from_json({key: value for key, value in values.items() if key != "dim"} | {"colour": 1})


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("vivit-B/16x2", "vivit2-B/16x2"),
        ("vivit2-b/16x2", "vivit2-"),
        ("timesfomer-S/8", "timesformer-S/8"),
        ("vivit2-B", "vivit2-B/16x2"),
        ("vivit2-B/16x", "vivit2-B/"),
        ("resnet50", "vivit2-B/16x2"),
        ("", "vivit2-B/16x2"),
    ],
)
def test_an_unknown_name_is_told_the_nearest(name, near):
    message = f"unknown model {name!r}: expected family-size/patch[xtubelet], such as "
    with pytest.raises(ValueError, match=re.escape(message) + ".*" + re.escape(near)):
        create_model(name)


@pytest.mark.parametrize(
    ("name", "settings", "message"),
    [
        ("vivit2-P/16x2", {"clip": (32, 224)}, "got clip=(32, 224), expected (T, H, W)"),
        ("vivit2-P/16x2", {"clip": (32, 224, 0)}, "each at least 1"),
        ("vivit2-P/16x2", {"clip": (32, 224, 225)}, "is not filled by tubelets (2, 16, 16)"),
        ("vivit2-P/16x2", {"clip": (1, 224, 224)}, "T = 1 of the clip (1, 224, 224) (T, H, W) is smaller"),
        ("vivit2-P/0x2", {}, "model 'vivit2-P/0x2' has a patch of size 0"),
        ("vivit2-P/16x2", {"stride": (1, 16)}, "got stride=(1, 16), expected (T, H, W)"),
        ("vivit2-P/16x2", {"frames": 4}, "name it /16"),
        ("vivit2-P/16x2", {"embed": "patch"}, "unknown tokeniser 'patch'"),
        ("vivit2-P/16x2", {"pool": "max"}, "unknown pooling 'max'"),
        ("vivit2-P/16x2", {"attend": "x"}, "unknown attention axes 'x'"),
        ("vivit2-P/16x2", {"num_classes": 0}, "got num_classes=0, expected at least 1"),
        ("vivit2-P/16x2", {"mean": (0.5, 0.5)}, "got mean=(0.5, 0.5) for 3 channels"),
        ("vivit2-P/16x2", {"std": (0.0,)}, "got std=(0.0,) for 3 channels, expected one number or one for each, all"),
        ("vivit2-P/16x2", {"drop_path": 1.0}, "got a drop path rate of 1.0"),
        ("vivit4-Ti/16x2", {}, "3 heads cannot be shared out equally among 't|hw'"),
        ("vit-P/16", {"clip": (16, 224, 224)}, "'vit-P/16' sees one frame, got clip=(16, 224, 224)"),
        ("vit-P/16", {"frames": 4}, "'vit-P/16' sees one frame"),
    ],
)
def test_a_model_that_cannot_be_is_refused(name, settings, message):
    with torch.device("meta"), pytest.raises(ValueError, match=re.escape(message)):
        create_model(name, **settings)


def test_heads_that_do_not_divide_the_width_are_refused():
    config = replace(tiny("vivit1").config, heads=5)
    with pytest.raises(ValueError, match="5 heads do not divide the width 24: choose a divisor of 24"):
        SpaceTimeTransformer(config)
    with pytest.raises(ValueError, match=r"unknown family 'vivit5': expected one of vit, vivit1"):
        SpaceTimeTransformer(replace(config, family="vivit5"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_that_does_not_fit_is_refused(family, dtype):
    model = tiny(family, mean=(0.1, 0.2, 0.3))
    t = model.input_size[0]

    def clip(*shape):
        return torch.zeros(shape, dtype=dtype)

    with pytest.raises(ValueError, match=r"got a tensor of shape \(3, 8, 8, 12\), expected a clip \(B, C, T, H, W\)"):
        model(clip(3, 8, 8, 12))
    with pytest.raises(ValueError, match=r"with C = 3: move the channels to the second place"):
        model(clip(2, t, 3, 8, 12))
    with pytest.raises(ValueError, match=r"W = 2 of the clip .* is smaller than the tubelet"):
        model(clip(2, 3, t, 8, 2))
    with pytest.raises(ValueError, match=r"H = 10 of the clip .* is not filled .* 8 or 12"):
        model(clip(2, 3, t, 10, 12))


def test_clips_of_whole_numbers_other_than_uint8_are_refused():
    model = tiny("vivit1")
    with pytest.raises(ValueError, match=r"got a clip of torch.int64, expected float \(normalised\) or uint8"):
        model(torch.zeros(1, 3, 8, 8, 12, dtype=torch.int64))


def test_an_input_size_that_does_not_fit_leaves_the_model_as_it_is():
    model = tiny("vivit1")
    for size in ((8, 8), (8, 10, 12), (1, 8, 12)):
        with pytest.raises(ValueError, match="clip"):
            model.set_input_size(size)
    assert model.input_size == (8, 8, 12)
