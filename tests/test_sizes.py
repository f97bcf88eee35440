"""Any size: a model at another clip size equals one made for that size, with the same weights and its position tables
resampled here, by hand. What whole tubelets do not fill is an error, or, if asked for, filled with the mean colour."""

import os
from dataclasses import replace
from itertools import product

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from naming import naming
from tiny import IMAGE, SWIN, TOKENISERS, VIDEO, clip_for, configure, tiny
from torch import Tensor
from torch.testing import assert_close

from tubelet.nn import FAMILIES, IMAGE_FAMILIES, Attention, Grid, SpaceTimeTransformer, position, rotary
from tubelet.nn.attention import Turns
from tubelet.nn.grid import fill, token_grid
from tubelet.train.optim import make_optimizer
from tubelet.weights import load, save

torch.set_num_threads(1)

NATIVE = Grid(4, 4, 6)
GRIDS = {
    "native": NATIVE,
    "as many tokens, wider": Grid(4, 3, 8),
    "as many tokens, upright": Grid(4, 8, 3),
    "as many tokens, shorter": Grid(2, 8, 6),
    "transposed": Grid(4, 6, 4),
    "square": Grid(4, 5, 5),
    "one tubelet in time": Grid(1, 4, 6),
    "shorter": Grid(2, 4, 6),
    "longer": Grid(7, 4, 6),
    "other on all axes": Grid(3, 5, 7),
    "four times the area": Grid(4, 8, 12),
    "a quarter of the area": Grid(4, 2, 3),
    "one row": Grid(4, 1, 30),
    "one column": Grid(4, 30, 1),
    "one patch": Grid(1, 1, 1),
    "1 x 1000 patches": Grid(1, 1, 1000),
    "128 frames": Grid(64, 2, 2),
    "a spectrogram of 128 x 1024": Grid(1, 8, 64),
}
PLACES = ["joint", "space+time", "t+h+w", "fixed", "sincos", "rotary", "rotary-tiled"]
TABLES = [family for family in FAMILIES if getattr(configure(family).stages[0], "tables", ())]


def size_of(grid: Grid, model: SpaceTimeTransformer, *, beyond: int = 0) -> tuple[int, int, int]:
    """The clip size of a grid; overlapping patches may leave some px `beyond` the last."""
    t, h, w = (p + (n - 1) * s for n, p, s in zip(grid, model.embed.patch, model.embed.stride, strict=True))
    return t, h, w + min(beyond, model.embed.patch[2] - model.embed.stride[2])


def sized(family: str, **chosen) -> SpaceTimeTransformer:
    """A model in float64, made for the native grid; AST's patches overlap."""
    image = family in IMAGE_FAMILIES
    stride = (1, 3, 2) if family == "ast" else (IMAGE["patch"] if image else (2, 4, 4))
    clip = tuple(p + (n - 1) * s for n, p, s in zip(NATIVE, (2, 4, 4), stride, strict=True))
    own = {"clip": (1, *clip[1:]) if image else clip, "stride": stride if family == "ast" else None}
    own |= {"window": (2, 2, 3)} if family == "swin2" else {}
    return tiny(family, **own | {"pool_depth": 1} | chosen).double()


def triangles(now: int, source: int) -> Tensor:
    """The weights (now, source) of linear interpolation that smooths what shrinks, written out."""
    scale = source / now
    middles = (torch.arange(now, dtype=torch.float64)[:, None] + 0.5) * scale - 0.5
    weights = (1 - (torch.arange(source) - middles).abs() / max(scale, 1.0)).clamp(min=0)
    return weights / weights.sum(1, keepdim=True)


def by_hand(table: Tensor, grid: Grid, *, keep_aspect: bool = False, rule: str = "bicubic") -> Tensor:
    """(t0, h0, w0, D) -> (t, h, w, D); what an axis of size 1 says holds along all of it."""
    t0, h0, w0, _ = table.shape
    if rule == "bilinear" and not keep_aspect:
        sides = zip(grid, (t0, h0, w0), strict=True)
        along = (triangles(now if source > 1 else 1, source) for now, source in sides)
        return torch.einsum("at,bh,cw,thwd->abcd", *along, table)
    h, w = (grid.h if h0 > 1 else 1), (grid.w if w0 > 1 else 1)
    scaled = (h, w)
    if keep_aspect and h0 > 1 and w0 > 1:  # the smallest picture of the same shape that covers the grid
        scaled = (h, -(-w0 * h // h0)) if h * w0 >= w * h0 else (-(-h0 * w // w0), w)
    how = {"mode": rule.split("-")[0], "antialias": not rule.endswith("-sharp")}
    maps = F.interpolate(table.permute(0, 3, 1, 2), scaled, **how)
    top, left = (scaled[0] - h) // 2, (scaled[1] - w) // 2
    maps = maps[:, :, top : top + h, left : left + w]
    lines = maps.permute(2, 3, 1, 0).flatten(0, 1)  # (h w, D, t0)
    lines = F.interpolate(lines, grid.t if t0 > 1 else 1, mode="linear")
    return lines.unflatten(0, (h, w)).permute(3, 0, 1, 2)


def made_for(model: SpaceTimeTransformer, size: tuple[int, int, int]) -> SpaceTimeTransformer:
    """A fresh model whose native size is `size`, with the weights of another: the oracle."""
    config, grid = replace(model.config, clip=size), token_grid(size, model.embed.patch, model.embed.stride)
    state = dict(model.state_dict())
    if (first := config.stages[0]).kind == "windows":  # as large a part of the grid as it was
        shares = zip(first.window, grid, model.grid(model.config.clip), strict=True)
        window = tuple(max(1, round(length * now / made)) for length, now, made in shares)
        config = config.with_stage(0, window=window)
        if window[0] == 1 < first.window[0]:  # then its bias is made from (h, w) alone: t would be 0
            state |= {name: tensor[:, 1:] for name, tensor in state.items() if name.endswith("meta.fc1.weight")}
    for name in state:
        if ".position.tables." in name:
            state[name] = by_hand(state[name], grid, keep_aspect=first.keep_aspect, rule=first.resampling)
    fresh = SpaceTimeTransformer(config).double().eval()
    fresh.load_state_dict(state)
    for was, now in zip(model.encoders, fresh.encoders, strict=True):
        if first.kind == "blocks" and first.position == "rotary-scaled" and was.over == "hw":
            now.position.turning.source = was.position.turning.source  # places stay those of the first grid, stretched
    return fresh


def agree(ours: Tensor, theirs: Tensor, *, within: float = 1e-6) -> None:
    assert ours.isfinite().all()
    assert_close(ours, theirs, atol=within, rtol=within)


def grids_of(family: str) -> dict[str, Grid]:
    """Images have no frames: their grids are those that differ in space."""
    flat = {grid.along("hw"): name for name, grid in reversed(GRIDS.items())}
    return GRIDS if family in VIDEO else {name: grid for grid, name in flat.items()}


MATRIX = [(family, name) for family in FAMILIES for name in grids_of(family)]


@pytest.fixture(scope="module")
def models() -> dict[str, SpaceTimeTransformer]:
    return {family: sized(family) for family in FAMILIES}


# ---- the matrix


@pytest.mark.parametrize(("family", "name"), MATRIX)
def test_a_model_at_any_size_equals_one_made_for_it(models, tmp_path, family, name):
    model, grid = models[family], grids_of(family)[name]
    size = size_of(grid, model, beyond=1)
    torch.manual_seed(1)
    home, clip = (torch.randn(1, 3, *shape).double() for shape in (model.config.clip, size))
    parameters = list(model.parameters())
    with torch.no_grad():
        at_home, called = model(home), model(clip)
        assert model.grid(size) == grid
        fresh = made_for(model, size)
        agree(called, fresh(clip))
        if grid.size < 300:
            agree(model.tokens(clip)[0], fresh.tokens(clip)[0])
        model.set_input_size(size)
        assert model.input_size == size
        agree(model(clip), called)
        loaded = load(save(model, tmp_path)).double()
        assert (loaded.input_size, loaded.config.clip) == (size, model.config.clip)
        loaded.load_state_dict(model.state_dict())  # float64, which a file does not say
        agree(loaded(clip), called)
        model.set_input_size(model.config.clip)
        assert torch.equal(model(home), at_home)
    assert all(a is b for a, b in zip(parameters, model.parameters(), strict=True))


def test_the_matrix_is_not_blind():
    """A table of as many tokens taken as it is, the commonest fault, is seen at once."""
    model = sized("vivit1")
    clip = torch.randn(1, 3, *size_of(Grid(4, 3, 8), model)).double()
    wrong = made_for(model, clip.shape[2:])
    with torch.no_grad():
        wrong.encoders[0].position.tables[0].copy_(model.encoders[0].position.tables[0].view(4, 3, 8, -1))
    assert (model(clip) - wrong(clip)).abs().max() > 1e-2


def test_float32_is_near_too():
    for family in ("vivit2", "timesformer", "videomae"):
        model = sized(family)
        clip = torch.randn(2, 3, *size_of(Grid(3, 5, 7), model))
        exact = made_for(model, clip.shape[2:])(clip.double())
        assert_close(model.float()(clip), exact.float(), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", ["vivit1", "vivit2", "vivit3", "vivit4", "timesformer", "vidtrans", "videomae"])
@pytest.mark.parametrize("places", PLACES)
@pytest.mark.parametrize("grid", [Grid(4, 3, 8), Grid(1, 6, 4), Grid(7, 2, 1)], ids=str)
def test_positions_of_every_kind_hold_at_every_size(family, places, grid):
    model = sized(family, position=places)
    clip = torch.randn(1, 3, *size_of(grid, model)).double()
    with torch.no_grad():
        agree(model(clip), made_for(model, clip.shape[2:])(clip))
    tables = [tuple(table.shape[:3]) for encoder in model.encoders for table in getattr(encoder.position, "tables", ())]
    per_axis = {(4, 1, 1), (1, 4, 1), (1, 1, 6)}
    assert places != "t+h+w" or set(tables) == per_axis
    assert places not in ("sincos", "rotary", "rotary-tiled") or not tables


@pytest.mark.parametrize("family", ["vivit1", "vivit2", "timesformer", "videomae", "ast"])
@pytest.mark.parametrize("name", [name for name, grid in GRIDS.items() if grid.size < 300])
def test_keeping_the_aspect_equals_the_middle_of_the_table_scaled_alike(family, name):
    model = sized(family, keep_aspect=True)
    grid = GRIDS[name].along("hw") if family in IMAGE_FAMILIES else GRIDS[name]
    clip = torch.randn(1, 3, *size_of(grid, model)).double()
    with torch.no_grad():
        agree(model(clip), made_for(model, clip.shape[2:])(clip))


@pytest.mark.parametrize("axes", ["thw", "hw", "t"])
def test_rotary_attention_does_not_know_where_its_grid_begins(axes):
    """The same tokens, further on in a larger grid, say the same to each other. (A prefix token, which stands nowhere,
    would tell where they are.)"""
    torch.manual_seed(0)
    large, grid = Grid(9, 8, 11), Grid(3, 2, 4)
    attention = Attention(24, 2, axes).double()
    x = torch.randn(2, grid.size, 24).double()
    turns = [y.double().view(*large, 12) for y in rotary(large, 12)[:2]]
    at = [
        Turns(*(y[t : t + 3, h : h + 2, w : w + 4].reshape(-1, 12) for y in turns))
        for t, h, w in ((0, 0, 0), (6, 6, 7), (2, 0, 5))
    ]
    here, *there = (attention(x, grid, place) for place in at)
    for moved in there:
        assert_close(moved, here, atol=1e-5, rtol=0)
    assert not torch.allclose(here, attention(x, grid), atol=1e-4)


# ---- one model, many sizes


@pytest.mark.parametrize("family", FAMILIES)
def test_an_optimizer_goes_on_at_another_size(family):
    model = sized(family).float().train()
    optimizer = make_optimizer(model, weight_decay=0.05, layer_decay=0.9)
    for group in optimizer.param_groups:
        group["lr"] = 1e-3
    for name in ("native", "other on all axes", "one row"):
        grid = GRIDS[name].along("hw") if family in IMAGE_FAMILIES else GRIDS[name]
        model.set_input_size(size_of(grid, model))
        before = {key: value.clone() for key, value in model.state_dict().items()}
        optimizer.zero_grad()
        model(clip_for(model)).square().sum().backward()
        optimizer.step()
        moved = {key for key, value in model.state_dict().items() if not torch.equal(value, before[key])}
        learning = {key for key, value in model.named_parameters() if value.requires_grad}
        # what is added to all logits of a head alike no softmax can tell; nor, in one row, what other rows would say
        still = {key for key in learning if key.endswith("meta.fc2.bias") or (name == "one row" and "attn" in key)}
        still |= set() if model.embed.all_used else {key for key in learning if key.startswith("embed.")}
        assert learning - moved <= still
        assert moved <= learning


@pytest.mark.parametrize("family", TABLES)
def test_what_training_changes_prediction_sees(family):
    """Tables are remembered in prediction; a fused optimizer changes them without counting it as a change."""
    model, grid = sized(family).float(), Grid(1, 3, 5)
    optimizer = make_optimizer(model, weight_decay=0.05, layer_decay=1.0)
    for group in optimizer.param_groups:
        group["lr"] = 0.1
    clips = [torch.randn(2, 3, *size) for size in (model.config.clip, size_of(grid, model))]
    for _ in range(3):
        model.train()(clips[0]).square().sum().backward()
        optimizer.step()
        model.eval()
        anew = sized(family).float()
        anew.load_state_dict(model.state_dict())
        for clip in clips:
            with torch.no_grad():
                assert torch.equal(model(clip), anew(clip))


@pytest.mark.parametrize("family", TABLES)
def test_a_size_seen_before_resamples_nothing(family, monkeypatch):
    calls, interpolate = [], F.interpolate
    monkeypatch.setattr(position.F, "interpolate", lambda *a, **k: calls.append(a) or interpolate(*a, **k))
    model = sized(family)
    with torch.no_grad():
        for grid in (Grid(1, 3, 5), Grid(1, 5, 3)):
            clip = torch.randn(1, 3, *size_of(grid, model)).double()
            first = model(clip)
            made = len(calls)
            assert made > 0
            assert torch.equal(model(clip), first)
            assert len(calls) == made
            calls.clear()
        model(torch.randn(1, 3, *model.config.clip).double())
    assert calls == []  # nor is there anything to resample at home


@pytest.mark.parametrize("family", FAMILIES)
def test_clips_of_several_sizes_come_out_as_each_alone(family):
    model = sized(family)
    grids = [Grid(1, 2, 3), Grid(1, 4, 6), Grid(1, 2, 3), Grid(1, 1, 9)]
    clips = [torch.randn(3, *size_of(grid, model)).double() for grid in grids]
    with torch.no_grad():
        agree(model(clips), torch.cat([model(clip[None]) for clip in clips]))
    with pytest.raises(ValueError, match=naming("(B, C, T, H, W)")):
        model([])


def test_uniform_frames_take_clips_of_any_length():
    model = sized("vivit2", patch=(1, 4, 4), frames=3, clip=(8, 16, 24))
    for length, steps in ((1, 1), (2, 2), (3, 3), (5, 3), (64, 3)):
        clip = torch.randn(2, 3, length, 12, 32).double()
        assert model.grid((length, 12, 32)) == (steps, 3, 8)
        state = dict(model.state_dict())
        for name in [name for name in state if ".position.tables." in name]:
            state[name] = by_hand(state[name], Grid(steps, 3, 8))
        fresh = SpaceTimeTransformer(replace(model.config, clip=(length, 12, 32))).double().eval()
        fresh.load_state_dict(state)
        agree(model(clip), fresh(clip))


# ---- sizes that tubelets do not fill


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("axis", range(3))
def test_pixels_are_never_left_out_without_a_word(family, axis):
    model = tiny(family)
    size, patch = list(model.input_size), model.embed.patch[axis]
    for length in range(1, 3 * patch + 1):
        size[axis] = length
        clip = torch.randn(1, 3, *size)
        still = axis == 0 and length == 1 and model.config.embed.kind == "video-image"  # a way of its own
        if length % patch == 0 or still:
            assert model(clip).shape == (1, 5)
            continue
        below = length // patch * patch
        remedy = (below, below + patch) if below else (patch,)
        for refused in (lambda clip=clip: model(clip), lambda: model.set_input_size(size), lambda: model.grid(size)):
            with pytest.raises(ValueError, match=naming(f"{'THW'[axis]} = {length}", *remedy)):
                refused()
    assert model.input_size == model.config.clip


MEAN = (51, 102, 204)  # of 255


@pytest.mark.parametrize(
    ("family", "chosen"),
    [(family, {}) for family in FAMILIES] + [("vivit2", tokeniser) for tokeniser in TOKENISERS.values()],
    ids=str,
)
@pytest.mark.parametrize("bytes_", [False, True], ids=["float", "uint8"])
def test_padding_equals_the_clip_filled_with_the_mean_colour(family, chosen, bytes_):
    chosen = chosen | {"mean": tuple(value / 255 for value in MEAN), "std": (0.2, 0.3, 0.4)}
    padding, plain = sized(family, pad="mean", **chosen), sized(family, **chosen)
    kt, kh, kw = plain.embed.patch
    for t, h, w in ((2 * kt, 2 * kh, 3 * kw), (kt, kh + 1, 2 * kw), (2 * kt - 1, 2 * kh, 3 * kw - 1), (1, 1, 1)):
        torch.manual_seed(0)
        filled = torch.tensor(MEAN if bytes_ else (0, 0, 0), dtype=torch.uint8 if bytes_ else torch.float64)
        still = t == 1 and plain.config.embed.kind == "video-image"  # a way of its own
        whole = fill((t, h, w), plain.embed.patch, plain.embed.stride)
        filled = filled.view(1, 3, 1, 1, 1).repeat(2, 1, *((1, *whole[1:]) if still else whole))
        clip = torch.randint(0, 256, (2, 3, t, h, w), dtype=torch.uint8) if bytes_ else torch.randn(2, 3, t, h, w)
        filled[:, :, :t, :h, :w] = clip
        with torch.no_grad():
            # a mean kept in float32 is not just that of a pixel
            agree(padding(clip.to(filled.dtype)), plain(filled), within=1e-4 if bytes_ else 1e-6)
        padding.set_input_size((t, h, w))
        assert padding.input_size == (t, h, w)
        assert padding.grid((t, h, w)) == plain.grid(filled.shape[2:])


@pytest.mark.parametrize("stride", [(2, 4, 4), (1, 3, 2), (2, 4, 1), (3, 5, 4)], ids=str)
def test_tokens_inside_the_clip_do_not_see_the_padding(stride):
    """Before attention: the tokens of tubelets that lie wholly inside equal those of the clip cropped to them."""
    model = sized("vivit1", stride=stride, pad="mean", clip=(8, 16, 24))
    cropping = sized("vivit1", stride=stride, clip=(2 + stride[0], 4 + stride[1], 4 + stride[2]))
    cropping.embed.load_state_dict(model.embed.state_dict())
    for size in product((2, 3, 5, 6), (4, 6, 9), (4, 7, 11)):
        clip = torch.randn(2, 3, *size).double()
        tokens, grid = model.embed_clip(clip)
        inside = Grid(*((n - p) // s + 1 for n, p, s in zip(size, (2, 4, 4), stride, strict=True)))
        t, h, w = (p + (n - 1) * s for n, p, s in zip(inside, (2, 4, 4), stride, strict=True))
        cropped, cropped_grid = cropping.embed_clip(clip[:, :, :t, :h, :w])
        assert cropped_grid == inside
        ours = tokens.unflatten(1, grid)[:, : inside.t, : inside.h, : inside.w]
        assert_close(ours.flatten(1, 3), cropped, atol=1e-9, rtol=1e-9)


def test_padding_fills_whole_tubelets_none_of_which_is_padding_alone():
    for size, patch, stride in product(range(1, 20), range(1, 6), range(1, 8)):
        padded, *_ = fill((size, 1, 1), (patch, 1, 1), (stride, 1, 1))
        starts = range(0, padded - patch + 1, stride)
        assert starts[-1] + patch == padded  # filled to the end
        assert starts[-1] < size  # the last begins inside the clip
        seen = {start + i for start in starts for i in range(patch)}
        gaps = {i for i in range(size) if i % stride >= patch}  # tubelets that stand apart see nothing in between
        assert set(range(size)) - gaps <= seen
        assert token_grid((padded, 1, 1), (patch, 1, 1), (stride, 1, 1)).t == len(starts)
        assert padded >= size or set(range(padded, size)) <= gaps


# ---- any shape, stride, patch, dtype and family: an answer, or an error that names the size at fault

NIGHTLY = os.environ.get("TUBELET_NIGHTLY") == "1"
FLOATS = [torch.float32, torch.bfloat16, torch.float64]
AT_FAULT = r"\b[THW] = \d+\b"
threes = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(1, 4))
sizes = st.tuples(st.integers(1, 9), st.integers(1, 14), st.integers(1, 14))


def fits(size, patch, stride) -> bool:
    return all(n >= p and (s < p or (n - p) % s == 0) for n, p, s in zip(size, patch, stride, strict=True))


@given(
    family=st.sampled_from(list(FAMILIES)),
    patch=threes,
    stride=st.none() | threes,
    embed=st.sampled_from(["tubelet", "tubelet", "space-time", "depthwise", "conv"]),
    native=st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3)),
    size=sizes,
    dtype=st.sampled_from([*FLOATS, torch.uint8, torch.int64, torch.int32, torch.bool]),
    precision=st.sampled_from(FLOATS),
    pad=st.sampled_from([None, "mean"]),
    places=st.none() | st.sampled_from(PLACES),
    keep_aspect=st.booleans(),
)
@settings(max_examples=2000 if NIGHTLY else 100, deadline=None, derandomize=not NIGHTLY)
def test_any_clip_gives_an_answer_or_an_error_that_names_what_is_wrong(
    family, patch, stride, embed, native, size, dtype, precision, pad, places, keep_aspect
):
    windows, stride = family == "swin2", None if embed == "conv" else stride  # whose steps are its patch
    steps = patch if stride is None else stride
    own = SWIN | {"depths": (1, 1), "heads": (2, 2)} if windows else {"depth": 1, "heads": 2}
    own |= {} if windows else {"position": places, "keep_aspect": keep_aspect}
    clip = tuple(p + (n - 1) * s for n, p, s in zip(native, patch, steps, strict=True))
    numbers = {"dim": 12, "mlp_dim": 12, "pool_depth": 1, "patch": patch, "stride": stride, "clip": clip, "pad": pad}
    numbers["embed"] = embed
    model = tiny(family, **numbers | own).to(precision)
    shown = torch.rand(2, 3, *size)
    shown = shown.to(dtype) if dtype.is_floating_point else (255 * shown).to(dtype)
    with torch.no_grad():
        if not dtype.is_floating_point and dtype != torch.uint8:
            with pytest.raises(ValueError, match=rf"{naming(dtype)}|{AT_FAULT}"):
                model(shown)
        elif pad is None and not fits(size, patch, steps):
            with pytest.raises(ValueError, match=AT_FAULT):
                model(shown)
        else:
            logits = model(shown)
            assert logits.shape == (2, 5)
            assert logits.dtype == precision
            assert logits.isfinite().all()
