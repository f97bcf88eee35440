"""Several kinds of clips through one encoder."""

import copy
from dataclasses import replace
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from naming import naming
from safetensors.torch import load_file, save_file
from tiny import clip_for, tiny
from torch import Tensor
from torch.testing import assert_close

import tubelet
from tubelet.nn import Grid, SharedEncoder, SpaceTimeTransformer, sincos
from tubelet.weights import from_reference, to_reference

GOLDEN = Path(__file__).parent / "golden" / "metatransformer_encoder.safetensors"


def three(**settings) -> dict[str, SpaceTimeTransformer]:
    """Models of images, videos and spectrograms that differ in all that a kind of clips has for itself."""
    return {
        "image": tiny("meta", clip=(1, 8, 12), patch=(1, 4, 4), num_classes=3, **settings),
        "video": tiny("meta", clip=(4, 8, 8), patch=(2, 4, 4), num_classes=4, embed="conv", **settings),
        "sound": tiny(
            "meta", clip=(1, 8, 20), patch=(1, 4, 2), stride=(1, 2, 2), channels=1, num_classes=0, **settings
        ),
    }


def differing() -> dict[str, SpaceTimeTransformer]:
    """The same with other random weights in each encoder."""
    models = three()
    with torch.no_grad():
        for i, model in enumerate(models.values()):
            for parameter in model.encoders.parameters():
                parameter.mul_(0.9 + i / 10)
    return models


def clips_for(models: dict[str, SpaceTimeTransformer]) -> dict[str, Tensor]:
    torch.manual_seed(1)
    return {name: clip_for(model) for name, model in models.items()}


def loss_of(logits: dict[str, Tensor]) -> Tensor:
    return sum((values.square().mean() for values in logits.values()), torch.zeros(()))


def values(module: torch.nn.Module) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in module.state_dict().items()}


def same(a: dict[str, Tensor], b: dict[str, Tensor]) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[name], b[name]) for name in a)


def test_each_kind_gets_what_its_own_model_with_the_same_encoder_gives():
    models = differing()
    alone = copy.deepcopy(models)
    for model in alone.values():
        model.encoders.load_state_dict(models["image"].encoders.state_dict())
    clips = clips_for(models)
    shared = SharedEncoder(models)
    logits = shared(clips)
    assert list(logits) == ["image", "video", "sound"]
    for name, model in alone.items():
        assert_close(logits[name], model(clips[name]), atol=0, rtol=0)
        assert_close(shared[name](clips[name]), logits[name], atol=0, rtol=0)
    assert_close(shared({"sound": clips["sound"]}), {"sound": logits["sound"]}, atol=0, rtol=0)


def test_every_tensor_of_the_encoder_is_counted_and_stored_once():
    models = differing()
    own = sum(p.numel() for model in models.values() for part in (model.embed, model.head) for p in part.parameters())
    encoder = sum(parameter.numel() for parameter in models["image"].encoders.parameters())
    shared = SharedEncoder(models)
    assert sum(parameter.numel() for parameter in shared.parameters()) == own + encoder
    assert list(shared.state_dict()) == [name for name, _ in shared.named_parameters()]
    assert "models.video.head.weight" in shared.state_dict()


@pytest.mark.parametrize("inside", [False, True])  # another module, such as a trainer's wrapper
def test_a_state_comes_back_and_what_is_missing_in_it_is_an_error(tmp_path, inside):
    shared, other = SharedEncoder(differing()), SharedEncoder(three())
    clips = clips_for(dict(shared.models.items()))
    whole = torch.nn.Sequential(shared) if inside else shared
    save_file(whole.state_dict(), tmp_path / "shared.safetensors")  # refuses tensors that share their memory
    state = load_file(tmp_path / "shared.safetensors")
    goal = torch.nn.Sequential(other) if inside else other
    assert not same(goal.state_dict(), state)
    goal.load_state_dict(state)
    assert same(goal.state_dict(), state)
    assert_close(other(clips), shared(clips), atol=0, rtol=0)
    del state[("0." if inside else "") + "encoders.0.blocks.1.mlp.fc1.weight"]
    with pytest.raises(RuntimeError, match=r"encoders\.0\.blocks\.1\.mlp\.fc1\.weight"):
        goal.load_state_dict(state)


def test_one_kind_is_saved_as_a_model_that_stands_alone(tmp_path):
    models = differing()
    clips = clips_for(models)
    shared = SharedEncoder(models)
    for name in models:
        tubelet.save(shared[name], tmp_path / name)
        back = tubelet.load(tmp_path / name)
        assert_close(back(clips[name]), shared[name](clips[name]), atol=0, rtol=0)
    loaded = SharedEncoder({name: tubelet.load(tmp_path / name) for name in models})
    assert_close(loaded(clips), shared(clips), atol=0, rtol=0)
    assert not loaded.training


def test_a_copy_shares_its_own_encoder_and_moving_keeps_it_one():
    shared = SharedEncoder(three())
    twin = copy.deepcopy(shared).double()
    assert twin["sound"].encoders is twin.encoders is twin["image"].encoders is not shared.encoders
    assert {tensor.dtype for tensor in twin.state_dict().values()} == {torch.float64}
    assert shared["sound"].encoders is shared.encoders


def test_the_encoder_gets_the_sum_of_the_gradients_of_all_kinds():
    shared = SharedEncoder(differing())
    clips = clips_for(dict(shared.models.items()))
    parts = []
    for name, clip in clips.items():
        alone = copy.deepcopy(shared)[name]
        loss_of({name: alone(clip)}).backward()
        parts.append([parameter.grad for parameter in alone.encoders.parameters()])
    loss_of(shared(clips)).backward()
    for parameter, *grads in zip(shared.encoders.parameters(), *parts, strict=True):
        assert all(grad.abs().max() > 0 for grad in grads)
        assert_close(parameter.grad, sum(grads), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("kinds", [["image", "sound"], ["video", "sound"]])
def test_frozen_only_tokenisers_and_heads_learn(kinds):
    shared = SharedEncoder({name: three()[name] for name in kinds})
    clips = clips_for(dict(shared.models.items()))
    optimizer = torch.optim.AdamW(shared.parameters(), lr=1e-2)

    def step() -> None:
        optimizer.zero_grad()
        loss_of(shared(clips)).backward()
        optimizer.step()

    shared.freeze()
    before, encoder = values(shared), values(shared.encoders)
    step()
    assert same(values(shared.encoders), encoder)
    changed = {name for name, tensor in values(shared).items() if not torch.equal(tensor, before[name])}
    assert changed == {name for name in before if name.startswith("models.")}
    shared.unfreeze()
    step()
    assert not any(torch.equal(tensor, encoder[name]) for name, tensor in values(shared.encoders).items())


def test_frozen_between_two_steps_it_stays_as_it_is_at_once():
    shared = SharedEncoder(three())
    clips = clips_for(dict(shared.models.items()))
    optimizer = torch.optim.AdamW(shared.parameters(), lr=1e-2)
    loss_of(shared(clips)).backward()
    optimizer.step()  # from now on there are momentum, weight decay, and gradients to follow
    shared.freeze()
    encoder = values(shared.encoders)
    optimizer.step()
    optimizer.zero_grad(set_to_none=False)
    loss_of(shared(clips)).backward()
    optimizer.step()
    assert same(values(shared.encoders), encoder)


def test_a_frozen_encoder_stays_in_eval_mode():
    shared = SharedEncoder(three(dropout=0.5, drop_path=0.5)).train()
    clips = clips_for(dict(shared.models.items()))
    assert not torch.equal(shared(clips)["image"], shared(clips)["image"])
    assert not shared.frozen
    shared.freeze()
    assert shared.frozen
    for _ in range(2):
        assert shared.training
        assert shared["image"].training
        assert not any(module.training for module in shared.encoders.modules())
        assert_close(shared(clips), shared(clips), atol=0, rtol=0)
        shared.train()
    shared.unfreeze()
    assert all(module.training for module in shared.modules())
    shared.eval().freeze()
    shared.unfreeze()
    assert not any(module.training for module in shared.modules())


def test_all_take_the_mode_of_the_first():
    models = three()
    models["sound"].train()
    assert not any(module.training for module in SharedEncoder(models).modules())
    models["image"].train()
    assert all(module.training for module in SharedEncoder(models).modules())


def released(model: SpaceTimeTransformer) -> SpaceTimeTransformer:
    """The model as its file in the released layout gives it."""
    return from_reference(to_reference(model, "metatransformer"), "metatransformer", heads=4, clip=(1, 16, 16))


def test_the_encoder_given_is_copied_and_training_settings_are_the_models_own():
    eps = {"eps": 1e-5, "pool_eps": 1e-5}  # the released one's
    models = three(drop_path=0.2, dropout=0.1, checkpointing=True, **eps)
    source = released(tiny("meta", **eps))
    theirs = values(source.encoders)
    with torch.no_grad():
        models["image"].encoders[0].blocks[0].mlp.fc1.weight.zero_()
    shared = SharedEncoder(models, encoder=source)
    assert same(values(shared.encoders), theirs)
    with torch.no_grad():
        for parameter in shared.encoders.parameters():
            parameter.add_(1.0)
    assert same(values(source.encoders), theirs)
    assert shared["image"].encoders[0].blocks[1].drop_path.rate == 0.2


def test_the_released_encoder_gives_its_tokens():
    tensors = load_file(GOLDEN)
    state = {name.removeprefix("weights."): t for name, t in tensors.items() if name.startswith("weights.")}
    source = from_reference(state, "metatransformer", heads=4, clip=(1, 64, 64))
    image, sound = (
        SpaceTimeTransformer(replace(source.config, channels=channels, clip=clip, num_classes=2))
        for channels, clip in ((3, (1, 32, 48)), (1, (1, 64, 16)))
    )
    shared = SharedEncoder({"image": image, "sound": sound}, encoder=source)
    grid = Grid(1, 1, 17)
    places = sincos(grid, 32, axes="thw").view(1, 17, 32)  # the released encoder has none
    for model in (shared["image"], shared["sound"]):
        with torch.no_grad():
            tokens, _ = model.encoders[0].tokens(tensors["input"] - places, grid)
        assert_close(tokens, tensors["logits"], atol=1e-5, rtol=0)


def stripes(count: int) -> tuple[Tensor, Tensor]:
    """Images (count, 3, 1, 16, 16) of stripes, level (0) or upright (1), of any phase and contrast."""
    labels = torch.arange(count) % 2
    wave = torch.sin(torch.arange(16) * 0.8 + 6.3 * torch.rand(count, 1)) * (0.5 + torch.rand(count, 1))
    level = wave[:, :, None].expand(-1, -1, 16)
    pictures = torch.where(labels[:, None, None] == 0, level, level.mT)
    return pictures[:, None, None].repeat(1, 3, 1, 1, 1) + 0.2 * torch.randn(count, 3, 1, 16, 16), labels


def sweeps(count: int) -> tuple[Tensor, Tensor]:
    """Spectrograms (count, 1, 1, 16 mel, 32 steps) of a tone that falls (0) or rises (1), from any pitch."""
    labels = torch.arange(count) % 2
    pitch = (labels * 2 - 1)[:, None] * torch.linspace(-4, 4, 32) + 6 + 4 * torch.rand(count, 1)
    energy = torch.exp(-((torch.arange(16)[None, :, None] - pitch[:, None]) ** 2))
    return 2 * energy[:, None, None] + 0.2 * torch.randn(count, 1, 1, 16, 32), labels


@pytest.mark.parametrize("frozen", [False, True])
def test_two_kinds_are_learned_in_one_run(frozen):
    torch.manual_seed(0)
    shared = SharedEncoder(
        {
            "image": tubelet.create_model("meta-P/4", clip=(1, 16, 16), num_classes=2),
            "sound": tubelet.create_model("meta-P/4", clip=(1, 16, 32), channels=1, num_classes=2),
        }
    )
    if frozen:
        shared.freeze()
    data = {"image": stripes, "sound": sweeps}
    optimizer = torch.optim.AdamW(shared.parameters(), lr=1e-3)
    for _ in range(25):
        batch = {name: make(16) for name, make in data.items()}
        logits = shared({name: clips for name, (clips, _) in batch.items()})
        loss = sum(F.cross_entropy(logits[name], labels) for name, (_, labels) in batch.items())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    shared.eval()
    for name, make in data.items():
        clips, labels = make(100)
        with torch.no_grad():
            right = shared[name](clips).argmax(1) == labels
        assert right.float().mean() > 0.9, name


OTHER = {
    "depth": (
        {"depth": 3},
        (
            "depth",
            3,
            2,
        ),
    ),
    "dim": (
        {"dim": 32},
        (
            "dim",
            32,
            24,
        ),
    ),
    "heads": (
        {"heads": 3},
        (
            "heads",
            3,
            4,
        ),
    ),
    "eps": (
        {"eps": 1e-5},
        (
            "eps",
            1e-5,
            1e-6,
        ),
    ),
    "attend": (
        {"attend": "hw,t"},
        (
            "attend",
            "hw,t",
            "thw",
        ),
    ),
    "position": (
        {"position": "rotary"},
        (
            "position",
            "rotary",
            "sincos",
        ),
    ),
    "two": (
        {"mlp_dim": 48, "gelu": "tanh"},
        (
            "mlp_dim",
            48,
            40,
            "gelu",
            "tanh",
            "erf",
        ),
    ),
}


@pytest.mark.parametrize("case", OTHER)
def test_encoders_that_differ_are_an_error_that_says_in_what(case):
    settings, values = OTHER[case]
    models = {"image": tiny("meta"), "sound": tiny("meta", channels=1, **settings)}
    with pytest.raises(ValueError, match=naming("'sound'", "'image'", *values)):
        SharedEncoder(models)


def test_what_a_family_leaves_out_is_compared_as_what_it_is():
    said = tiny("vivit1", position="sincos", pool="mean", norm="none", attend="thw")
    SharedEncoder({"image": tiny("meta"), "sound": said})


def test_an_encoder_given_that_does_not_fit_is_an_error():
    with pytest.raises(ValueError, match=naming("'image'", "depth", 3, 2)):
        SharedEncoder(three(), encoder=tiny("meta", depth=3))


@pytest.mark.parametrize("family", ["vit", "vivit1", "videomae", "ast", "swin2"])
def test_an_encoder_that_belongs_to_one_grid_is_an_error(family):
    models = {"image": tiny(family), "sound": tiny(family, channels=1)}
    with pytest.raises(ValueError, match=naming("'image'", "sincos", "rotary")):
        SharedEncoder(models)


@pytest.mark.parametrize("name", ["a.b", "", "keys"])
def test_a_name_that_no_module_can_have_is_an_error(name):
    with pytest.raises(ValueError, match=naming("module", "name")):
        SharedEncoder({name: tiny("meta")})


def test_no_models_and_unknown_clips_are_errors():
    with pytest.raises(ValueError, match=naming("models")):
        SharedEncoder({})
    shared = SharedEncoder(three())
    with pytest.raises(ValueError, match=naming("'text'", "image", "video", "sound")):
        shared({"text": torch.zeros(1, 3, 1, 8, 8)})
