import copy
import json
import pickle
import re
from dataclasses import replace

import pytest
import torch
from naming import naming
from tiny import TOKENISERS, VIDEO, blocks_of, clip_for, configure, tiny, without_bias_dropout
from torch.testing import assert_close
from torch.utils.flop_counter import FlopCounterMode

from tubelet.nn import (
    FAMILIES,
    IMAGE_FAMILIES,
    Attention,
    DropPath,
    SpaceTimeTransformer,
    create_model,
    list_models,
    model_config,
    regularise,
)
from tubelet.nn.create import format_name
from tubelet.nn.model import pools_by_mean
from tubelet.nn.regularise import drop_path_rates
from tubelet.weights.settings import read_config

# arXiv 2103.15691 and scenic's code: B/16x2, 32 frames of 224 x 224 px, 400 classes
PAPER = {
    "vivit1": (88_954_000, 451.5),
    "vivit2": (115_062_928, 283.3),
    "vivit3": (117_319_312, 371.1),
    "vivit4": (88_952_464, 276.2),
    "vivit2 averaging frames": (86_696_080, 282.9),
}


@pytest.mark.parametrize("model", PAPER)
def test_parameters_and_macs_of_the_paper(model):
    parameters, gmacs = PAPER[model]
    config = model_config(f"{model.split()[0]}-B/16x2", clip=(32, 224, 224), num_classes=400)
    config = replace(config, stages=config.stages[:1]) if "averaging" in model else config
    with torch.device("meta"):
        ours = SpaceTimeTransformer(config)
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
            model = create_model(f"{name}/16", clip=(1 if family in IMAGE_FAMILIES else 2, 32, 48), num_classes=3)
            dim, depth, heads, *own = FAMILIES[family].sizes[size]
            assert model.config.stages[0].size == (dim, depth, heads)
            assert all(getattr(model.config.stages[0], key) == value for key, value in dict(*own).items())
            assert format_name(model.config) == f"{name}/16"
            assert model.config.family == family
    assert {name.split("-")[0] for name in list_models()} == set(FAMILIES)
    assert "vivit2-B" in list_models()
    assert "vivit4-Ti" not in list_models()  # three heads cannot be shared out


def test_the_name_says_patch_and_tubelet():
    assert model_config("vivit1-P/16x4").embed.patch == (4, 16, 16)
    assert model_config("vivit1-P/8").embed.patch == (1, 8, 8)
    assert model_config("vit-P/16").clip == (1, 224, 224)
    assert model_config("ast-P/16").embed.stride == (1, 10, 10)  # arXiv 2104.01778, section 2.1: 6 px overlap
    assert model_config("swin2-P/4", clip=(1, 256, 192)).stages[0].window == (1, 8, 6)
    assert model_config("swin2-P/4x2", clip=(32, 64, 64)).stages[0].window == (8, 2, 2)


@pytest.mark.parametrize("family", FAMILIES)
def test_tokens_features_and_logits_agree_in_shape_and_value(family):
    model = tiny(family)
    clip = clip_for(model)
    tokens, grid = model.tokens(clip)
    assert model.grid(model.input_size) == ((1, 2, 3) if family in IMAGE_FAMILIES else (4, 2, 3))
    # Swin's second stage halves height and width and doubles the channels
    assert grid == ((4, 1, 2) if family == "swin2" else model.grid(model.input_size))
    dim = 48 if family == "swin2" else 24
    prefix = model.stack[0].prefix_size
    tokens_before = {"vit": 1, "vivit1": 1, "vivit2": 1, "timesformer": 1, "vidtrans": 1, "ast": 2}
    assert prefix == (tokens_before | {"pe": 1, "pevideo": 1, "dinov3": 5}).get(family, 0)
    assert tokens.shape == (2, prefix + grid.size, dim)
    assert model.features(clip).shape == (2, dim)
    assert_close(model(clip), model.head(model.features(clip)))
    assert_close(model(clip)[:1], model(clip[:1]), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["vivit1", "vivit3", "vivit4", "timesformer", "vidtrans", "videomae", "meta", "ast"])
def test_features_are_pooled_from_the_tokens(family):
    """Where one encoder does it all and pooling has no parameters but a norm: the kinds are in test_pool."""
    model = tiny(family)
    clip = clip_for(model)
    tokens, _ = model.tokens(clip)
    first = model.encoders[0]
    assert_close(model.features(clip), first.pool(tokens)[:, 0], atol=1e-5, rtol=1e-5)
    kinds = {"vivit1": "cls", "timesformer": "cls", "vidtrans": "cls", "ast": "cls+dist"}
    assert first.pool.kind == kinds.get(family, "mean")


@pytest.mark.parametrize("family", FAMILIES)
def test_the_mean_over_steps_is_the_answer(family):
    """Of a model that pools by the mean; no other has steps."""
    model = tiny(family)
    clip = clip_for(model)
    if not pools_by_mean(model.config):
        with pytest.raises(ValueError, match="steps"):
            model(clip, each_step=True)
        return
    logits = model(clip, each_step=True)
    assert_close(logits.mean(1), model(clip))
    with pytest.raises(ValueError, match="steps"):
        model([*clip], each_step=True)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_without_head_gives_its_features(family):
    headless, model = tiny(family, num_classes=0), tiny(family)
    body = {name: tensor for name, tensor in model.state_dict().items() if not name.startswith("head.")}
    headless.load_state_dict(body)
    clip = clip_for(model)
    assert_close(headless(clip), model.features(clip), atol=0, rtol=0)


@pytest.mark.parametrize("family", VIDEO)
def test_the_order_of_the_frames_matters(family):
    model = tiny(family)
    clip = clip_for(model)
    assert not torch.allclose(model(clip), model(clip.flip(2)), atol=1e-3)


@pytest.mark.parametrize("family", ["vivit1", "vivit2", "vivit3", "vivit4", "timesformer", "vidtrans", "videomae"])
def test_without_positions_along_time_the_order_of_the_tubelets_does_not_matter(family):
    model = tiny(family)
    with torch.no_grad():
        for encoder in model.encoders:
            for table in encoder.position.tables:
                table.copy_(table.mean(0, keepdim=True).expand_as(table))
    clip = clip_for(model)
    moved = clip.unflatten(2, (4, 2))[:, :, [2, 0, 3, 1]].flatten(2, 3)
    assert_close(model(moved), model(clip), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("channels", [1, 3])
def test_uint8_clips_are_normalised_with_the_models_own_mean_and_std(channels):
    mean, std = (0.485, 0.456, 0.406)[:channels], (0.229, 0.224, 0.225)[:channels]
    model = tiny("vivit2", channels=channels, mean=mean, std=std)
    clip = torch.randint(0, 256, (2, channels, *model.input_size), dtype=torch.uint8)
    shape = (-1, 1, 1, 1)
    normalised = (clip / 255 - torch.tensor(mean).view(shape)) / torch.tensor(std).view(shape)
    assert_close(model(clip), model(normalised), atol=1e-5, rtol=1e-5)


SETTINGS_THAT_ACT = [
    ("vivit2", {"attend": "hw,t"}),
    ("vivit2", {"attend": "t|hw", "pool": "mean"}),
    ("vivit2", {"pool": "mean"}),
    ("vivit2", {"pool": "attentive"}),
    ("vivit2", {"prefix": 3}),
    ("vivit2", {"norm": "both"}),
    ("vivit2", {"norm": "none"}),
    ("vivit2", {"norm": "both", "pool_eps": 1e-2}),
    ("vivit2", {"temporal_depth": 0}),
    ("vivit2", {"temporal_depth": 2}),
    *(("vivit2", settings) for kind, settings in TOKENISERS.items() if kind != "tubelet"),
    ("vivit2", {"stride": (1, 4, 4)}),
    ("vivit2", {"patch": (1, 4, 4), "frames": 3}),
    ("vivit2", {"eps": 1e-2}),
    ("vivit2", {"gelu": "tanh"}),
    ("vivit2", {"mean": (0.1,)}),
    ("vivit2", {"std": (0.1, 0.2, 0.3)}),
    ("vivit2", {"position": "sincos"}),
    ("vivit2", {"position": "rotary"}),
    ("vivit2", {"position": "rotary-tiled"}),
    ("vivit2", {"position": "t+h+w"}),
    ("vivit1", {"position": "space+time"}),
    ("vidtrans", {"position": "joint"}),
    ("vidtrans", {"position": "t+h+w"}),
    ("timesformer", {"position": "rotary"}),
    ("meta", {"position": "fixed"}),
    ("meta", {"position": "joint"}),
    ("vjepa2", {"pool_depth": 1}),
    ("vjepa2", {"pool": "mean"}),
    ("ast", {"pool": "cls", "prefix": 2}),
    ("ast", {"pool": "cls,dist"}),
    ("ast", {"norm": "tokens"}),
    ("ast", {"pool_eps": 1e-2}),
    ("ast", {"stride": (1, 2, 3)}),
    ("vivit3", {"norm": "pooled"}),
    ("videomae", {"norm": "none"}),
    ("videomae", {"position": "sincos"}),
    ("swin2", {"window": (1, 2, 2)}),
    ("swin2", {"window": (2, 2, 2)}),
    ("swin2", {"level_norms": True}),
]


@pytest.mark.parametrize(("family", "settings"), SETTINGS_THAT_ACT, ids=str)
def test_each_setting_changes_the_answer(family, settings):
    plain, changed = tiny(family), tiny(family, **settings)
    shapes = {name: tensor.shape for name, tensor in changed.state_dict().items()}
    fitting = {name: tensor for name, tensor in plain.state_dict().items() if shapes.get(name) == tensor.shape}
    changed.load_state_dict(fitting, strict=False)  # so that what is in both does not differ
    clip = torch.randint(0, 256, (2, 3, *plain.input_size), dtype=torch.uint8)
    theirs, ours = plain(clip), changed(clip)
    assert ours.shape == theirs.shape
    assert not torch.allclose(theirs, ours, atol=1e-6)


def test_keeping_the_aspect_acts_where_the_shape_changes():
    plain, kept = tiny("vivit1"), tiny("vivit1", keep_aspect=True)
    for size, same in ((plain.input_size, True), ((8, 16, 24), True), ((8, 16, 12), False)):
        clip = torch.randn(2, 3, *size)
        assert torch.allclose(plain(clip), kept(clip), atol=1e-6) == same


@pytest.mark.parametrize("settings", [{"dropout": 0.5}, {"drop_path": 0.5}], ids=str)
@pytest.mark.parametrize("family", FAMILIES)
def test_regularisation_acts_in_training_only(family, settings):
    plain, model = without_bias_dropout(tiny(family)), without_bias_dropout(tiny(family, **settings))
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
    assert drop_path_rates(0.3, 4) == pytest.approx([0.0, 0.1, 0.2, 0.3])
    assert drop_path_rates(0.3, 1) == [0.0]
    encoders = tiny("vivit2", drop_path=0.3, depth=4, temporal_depth=3).encoders
    rates = [[block.drop_path.rate for block in encoder.blocks] for encoder in encoders]
    assert rates == [pytest.approx([0.0, 0.1, 0.2, 0.3]), pytest.approx([0.0, 0.15, 0.3])]


def fresh(family: str, **settings) -> SpaceTimeTransformer:
    torch.manual_seed(0)
    clip = (1, 8, 12) if family in IMAGE_FAMILIES else (6, 8, 12)
    return SpaceTimeTransformer(configure(family, clip=clip, mlp_dim=48, **settings)).train()


def without_gradient(model: SpaceTimeTransformer, clip: torch.Tensor) -> set[str]:
    model.zero_grad()
    torch.nn.functional.cross_entropy(model(clip), torch.tensor([0, 1, 2, 3])).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.requires_grad}
    return {name for name, grad in gradients.items() if grad is None or not grad.abs().max() > 1e-9}


@pytest.mark.parametrize("embed", TOKENISERS)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_fresh_model_is_undecided_and_every_parameter_has_a_gradient_from_the_first_step(family, embed):
    model = fresh(family, **TOKENISERS[embed])
    clip = clip_for(model, batch=4)
    assert 0.01 < model(clip).std() < 0.3
    kernels = {f"embed.{part}.proj.{kind}" for part in ("image", "video") for kind in ("weight", "bias")}
    used = "image" if clip.shape[2] == 1 else "video"
    unused = {name for name in kernels if used not in name} if model.config.embed.kind == "video-image" else set()
    lacking = without_gradient(model, clip) - unused
    if family == "swin2":  # its norms start at weight 0, so that new blocks change nothing: these learn first
        blocks = [f"{name}.{part}." for name in blocks_of(model) for part in ("attn", "mlp")]
        assert lacking == {name for name, _ in model.named_parameters() if name.startswith(tuple(blocks))}
        torch.optim.AdamW(model.parameters(), lr=1e-2).step()
        # from the second step on all learn but what is added to all logits of a head alike: no softmax can tell
        lacking = {name for name in without_gradient(model, clip) - unused if not name.endswith("meta.fc2.bias")}
    assert lacking == set()


@pytest.mark.parametrize("family", FAMILIES)
def test_only_fixed_tables_and_norms_beside_the_answer_do_not_learn(family):
    still = {name for name, parameter in fresh(family).named_parameters() if not parameter.requires_grad}
    beside = {f"encoders.0.level_norms.0.{part}" for part in ("weight", "bias")}
    assert still == {"videomae": {"encoders.0.position.tables.0"}, "vjepa21": beside}.get(family, set())


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


TO_GRADIENTS = [("vivit2", "aot_eager"), ("timesformer", "aot_eager")]


@pytest.mark.parametrize(("family", "backend"), [*((family, "eager") for family in FAMILIES), *TO_GRADIENTS])
def test_compile_has_no_graph_break(family, backend):
    model = tiny(family)
    clip = clip_for(model)
    torch.compiler.reset()
    compiled = torch.compile(model, backend=backend, fullgraph=True)
    assert_close(compiled(clip), model(clip), atol=1e-5, rtol=1e-5)


def test_settings_travel_as_json():
    config = tiny("vivit2", stride=(1, 4, 4), mean=(0.1, 0.2, 0.3)).config
    values = json.loads(json.dumps(config.to_json()))
    assert read_config(values) == config
    with pytest.raises(ValueError, match=naming("clip", "colour")):
        read_config({key: value for key, value in values.items() if key != "clip"} | {"colour": 1})
    for part in (values["stages"][1], values["embed"]):
        part["colour"] = 1
        with pytest.raises(ValueError, match=naming("colour")):
            read_config(values)
        del part["colour"]


def test_what_the_first_encoder_gives_depends_on_its_settings_and_on_no_others():
    for family in ("vivit2", "swin2"):
        config = configure(family)
        own = config.encoder_settings()
        assert json.loads(json.dumps(own)) == json.loads(json.dumps(configure(family).encoder_settings()))
        assert replace(config, num_classes=9, family="other").encoder_settings() == own
        longer = replace(config, clip=(16, 8, 12)).encoder_settings()
        assert (longer == own) == (family == "vivit2")  # a window's share of the grid is that at `clip`
        others = [replace(config, channels=1), replace(config, mean=(0.1,)), config.with_stage(0, eps=1e-3)]
        assert all(other.encoder_settings() != own for other in [*others, config.with_embed(pad="mean")])
    config = configure("vivit2")
    assert config.with_stage(1, depth=3).encoder_settings() == config.encoder_settings()


@pytest.mark.parametrize("family", FAMILIES)
def test_a_model_can_be_copied_and_pickled(family):
    model = tiny(family)
    clip = clip_for(model)
    wanted = model(clip)
    for again in (copy.deepcopy(model), pickle.loads(pickle.dumps(model))):
        assert torch.equal(again(clip), wanted)


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
    with pytest.raises(ValueError, match=naming(repr(name)) + ".*" + re.escape(near)):
        create_model(name)


@pytest.mark.parametrize(
    ("name", "settings", "values"),
    [
        ("vivit2-P/16x2", {"clip": (32, 224)}, ("clip=(32, 224)", "(T, H, W)")),
        ("vivit2-P/16x2", {"clip": (32, 224, 0)}, ("clip=(32, 224, 0)", "(T, H, W)", 1)),
        ("vivit2-P/16x2", {"clip": (32, 224, 225)}, ("W = 225", "(2, 16, 16)", 224, 240)),
        ("vivit2-P/16x2", {"clip": (1, 224, 224)}, ("T = 1", "(1, 224, 224)", "(2, 16, 16)", 2)),
        ("vivit2-P/0x2", {}, ("'vivit2-P/0x2'", 0, 1)),
        ("vivit2-P/16x2", {"embed": "patch"}, ("'patch'", "tubelet", "conv")),
        ("vivit2-P/16x2", {"pool": "max"}, ("'max'", "cls", "attentive")),
        ("vivit2-P/16x2", {"attend": "x"}, ("'x'", "thw", "hw", "t")),
        (
            "vivit2-P/16x2",
            {"num_classes": -1},
            ("num_classes=-1", 1, 0),
        ),
        (
            "vivit2-P/16x2",
            {"position": "joint+time"},
            ("'joint+time'", "joint", "space+time"),
        ),
        ("vivit2-P/16x2", {"pool": "cls,dist"}, ("pool='cls,dist'", 192, "stage 1", 96)),
        ("ast-P/16", {"clip": (16, 224, 224)}, ("'ast-P/16'", "clip=(16, 224, 224)", "clip=(1, H, W)")),
        ("swin2-P/4", {"position": "sincos"}, ("windows", "position='sincos'")),
        ("swin2-P/4", {"pool": "cls"}, ("windows", "pool='cls'")),
        ("vivit2-P/16x2", {"mean": (0.5, 0.5)}, ("mean=(0.5, 0.5)", 3)),
        ("vivit2-P/16x2", {"std": (0.0,)}, ("std=(0.0,)", 3)),
        ("vivit3-P/16x2", {"attend": "t|hw"}, ("heads", 3, "'t|hw'")),
        ("vivit4-Ti/16x2", {}, ("'vivit4-Ti/16x2'", "family-size/patch[xtubelet]")),
        ("vit-P/16", {"clip": (16, 224, 224)}, ("'vit-P/16'", "clip=(16, 224, 224)", "clip=(1, H, W)")),
    ],
)
def test_a_model_that_cannot_be_is_refused(name, settings, values):
    with torch.device("meta"), pytest.raises(ValueError, match=naming(*values)):
        create_model(name, **settings)


@pytest.mark.parametrize(
    ("family", "settings", "values"),
    [
        ("vivit2", {"stride": (1, 4)}, ("stride=(1, 4)", "(T, H, W)")),
        ("vivit2", {"frames": 4}, (2, "/4")),
        ("vivit2", {"pad": "zeros"}, ("pad", "'zeros'", "'mean'", None)),
        ("vivit2", {"prefix": 0}, ("pool='cls'", "prefix=0", "prefix=1")),
        ("ast", {"prefix": 1}, ("pool='cls+dist'", "prefix=1", "prefix=2")),
        ("vivit1", {"heads": 5}, ("heads", 5, 24)),
        ("vivit1", {"over": "h"}, ("over='h'", "thw", "hw", "t")),
        ("vivit1", {"pool": "none", "prefix": 0}, ("pool='none'",)),
        ("vivit1", {"levels": (1, 0)}, ("levels=(1, 0)", 1)),
        ("vivit1", {"levels": (0,)}, ("levels=(0,)", 1)),
        ("vivit1", {"mlp": "wide"}, ("mlp", "'wide'", "plain", "gated")),
        ("vivit1", {"resampling": "area"}, ("resampling", "'area'", "bicubic", "bilinear-sharp")),
        ("pe", {"pool_heads": 5}, (5, 24)),
        ("vivit1", {"norm_kind": "group"}, ("norm_kind", "'group'", "layer", "rms")),
        ("vivit1", {"conv": True}, ("conv", "over='thw'")),
        ("vivit1", {"unit": True}, ("unit=True", "gives=None")),
        ("videoprism", {"gives": 5}, ("gives=20", "pool='none'")),
        ("vivit2", {"takes": 20}, (20, 24)),
        ("vivit1", {"norm": "rms"}, ("norm", "'rms'", "tokens", "pooled", "both", "none")),
        ("swin2", {"window": (1, 0, 4)}, ("window=(1, 0, 4)", "(t, h, w)")),
    ],
)
def test_data_of_which_no_model_can_be_made_are_refused(family, settings, values):
    with pytest.raises(ValueError, match=naming(*values)):
        SpaceTimeTransformer(configure(family, **settings))


@pytest.mark.parametrize("settings", [{"drop_path": 1.0}, {"drop_path": -0.1}, {"dropout": 1.0}])
def test_a_rate_that_is_none_is_refused(settings):
    with pytest.raises(ValueError, match=naming(*(f"{name}={value}" for name, value in settings.items()))):
        regularise(tiny("vivit1"), **settings)


def test_fields_that_a_stage_does_not_have_are_refused():
    with pytest.raises(TypeError, match="keep_aspect"):
        tiny("swin2").config.with_stage(0, keep_aspect=True)


def test_regularisation_is_set_anew_each_time_and_is_no_part_of_the_configuration():
    model, plain = tiny("vjepa2", drop_path=0.3, dropout=0.2, checkpointing=True), tiny("vjepa2")
    assert model.config == plain.config
    assert model.stack[0].blocks[-1].drop_path.rate == 0.3
    assert all(layer.checkpointing and layer.dropout.p == layer.attns[0].p == 0.2 for layer in model.stack[0].layers)
    regularise(model)
    assert all(
        not layer.checkpointing and layer.dropout.p == layer.attns[0].p == 0.0 for layer in model.stack[0].layers
    )
    assert model.stack[0].blocks[-1].drop_path.rate == 0.0


def test_rotary_positions_need_pairs_of_channels_for_each_axis():
    with pytest.raises(ValueError, match=naming("'thw'", 4, 6)):
        SpaceTimeTransformer(configure("vivit1", heads=6, position="rotary"))


@pytest.mark.parametrize("dtype", [torch.float32, torch.uint8])
@pytest.mark.parametrize("family", FAMILIES)
def test_a_clip_that_does_not_fit_is_refused(family, dtype):
    model = tiny(family, mean=(0.1, 0.2, 0.3))
    t = model.input_size[0]

    def clip(*shape):
        return torch.zeros(shape, dtype=dtype)

    with pytest.raises(ValueError, match=naming("(3, 8, 8, 12)", "(B, C, T, H, W)", "C = 3")):
        model(clip(3, 8, 8, 12))
    with pytest.raises(ValueError, match=naming(f"(2, {t}, 3, 8, 12)", "(B, C, T, H, W)", "C = 3")):
        model(clip(2, t, 3, 8, 12))
    with pytest.raises(ValueError, match=naming("W = 2", 4)):
        model(clip(2, 3, t, 8, 2))
    with pytest.raises(ValueError, match=naming("H = 10", 8, 12)):
        model(clip(2, 3, t, 10, 12))


def test_clips_of_whole_numbers_other_than_uint8_are_refused():
    model = tiny("vivit1")
    with pytest.raises(ValueError, match=naming("torch.int64", "float", "uint8")):
        model(torch.zeros(1, 3, 8, 8, 12, dtype=torch.int64))


@pytest.mark.parametrize("settings", [{}, {"stride": (1, 2, 4)}, {"embed": "conv"}, {"embed": "space-time"}], ids=str)
def test_float_clips_of_any_precision_are_taken_in_that_of_the_model(settings):
    model = tiny("vivit1", **settings)
    clip = clip_for(model).half()
    for shown in (clip, clip.double(), clip.float()):
        assert torch.equal(model(shown), model(clip.float()))


def test_an_input_size_that_does_not_fit_leaves_the_model_as_it_is():
    model = tiny("vivit1")
    for size in ((8, 8), (8, 10, 12), (1, 8, 12)):
        with pytest.raises(ValueError, match=naming(size)):
            model.set_input_size(size)
    assert model.input_size == (8, 8, 12)
