"""Models of ours under the names of reference programs: read again they answer the same, or a dialect has no words."""

import pytest
from goldens import TOLERANCE
from naming import naming
from tiny import clip_for, tiny
from torch.testing import assert_close

from tubelet.nn import SpaceTimeTransformer, create_model
from tubelet.weights import from_reference, recognise, to_reference

VIVIT = {"gelu": "tanh"}
PE = {"patch": (1, 4, 4), "clip": (1, 8, 12), "heads": 2, "eps": 1e-5}
TIMM_PE = PE | {"position": "rotary-scaled", "tables": ("hw",), "resampling": "bicubic"}
DINOV3 = {"patch": (1, 4, 4), "clip": (1, 8, 12), "heads": 2, "eps": 1e-5, "num_classes": 0}
SIGLIP2 = {"patch": (1, 4, 4), "clip": (1, 12, 12), "num_classes": 0, "pool_mlp_dim": 40}
STILL = {"patch": (1, 4, 4), "clip": (3, 8, 12)}
OURS = {
    "vit": ("timm", "vit", {}),
    "vit, mean": ("timm", "vit", {"pool": "mean"}),
    "vit, mean with norm": ("timm", "vit", {"pool": "mean", "norm": "pooled", "prefix": 1}),
    "vit, registers": ("timm", "vit", {"prefix": 4}),
    "vit, mean, registers": ("timm", "vit", {"pool": "mean", "prefix": 3}),
    "vit, distilled": ("timm", "vit", {"pool": "cls,dist"}),
    "vit, distilled, registers": ("timm", "vit", {"pool": "cls,dist", "prefix": 5}),
    "vit, distilled, no head": ("timm", "vit", {"pool": "cls+dist", "num_classes": 0}),
    "vit, no head": ("timm", "vit", {"num_classes": 0}),
    "vit, sound": ("audiomae", "vit", {"channels": 1, "pool": "mean", "norm": "pooled", "prefix": 1}),
    "swin2": ("timm", "swin2", {"patch": (1, 4, 4), "clip": (1, 16, 24), "window": (1, 1, 2), "eps": 1e-5}),
    "swin2, norms": (
        "timm",
        "swin2",
        {"patch": (1, 4, 4), "clip": (1, 16, 24), "window": (1, 2, 3), "eps": 1e-5, "level_norms": True},
    ),
    "vivit1": ("scenic", "vivit1", VIVIT),
    "vivit1, mean": ("scenic", "vivit1", VIVIT | {"pool": "mean"}),
    "vivit1, frames": ("scenic", "vivit1", VIVIT | {"frames": 3, "patch": (1, 4, 4)}),
    "vivit1, no head": ("scenic", "vivit1", VIVIT | {"num_classes": 0}),
    "vivit2": ("scenic", "vivit2", VIVIT),
    "vivit2, mean": ("scenic", "vivit2", VIVIT | {"pool": "mean"}),
    "vivit3": ("scenic", "vivit3", VIVIT),
    "vivit3, time first": ("scenic", "vivit3", VIVIT | {"attend": "t,hw"}),
    "vivit4": ("scenic", "vivit4", VIVIT),
    "vivit1 for transformers": ("hf-vivit", "vivit1", VIVIT),
    "timesformer": ("timesformer", "timesformer", STILL),
    "vidtrans": ("timesformer", "vidtrans", STILL),
    "timesformer for transformers": ("hf-timesformer", "timesformer", STILL),
    "vidtrans for transformers": ("hf-timesformer", "vidtrans", STILL),
    "vivit2, frames averaged": ("hf-timesformer", "vivit2", STILL | {"temporal_depth": 0}),
    "vjepa2": ("hf-vjepa2", "vjepa2", {"pool_depth": 1}),
    "vjepa2, no head": ("hf-vjepa2", "vjepa2", {"num_classes": 0}),
    "vjepa2, mean": ("hf-vjepa2", "vjepa2", {"num_classes": 0, "pool": "mean"}),
    "pe, no head": ("pe-core", "pe", PE | {"num_classes": 0}),
    "pe, no class token": ("pe-core", "pe", PE | {"num_classes": 0, "prefix": 0}),
    "pe, no pooling": ("pe-core", "pe", PE | {"num_classes": 0, "pool": "mean", "norm": "none", "prefix": 0}),
    "pe for timm": ("timm", "pe", TIMM_PE),
    "pe for timm, no class token": ("timm", "pe", TIMM_PE | {"prefix": 0}),
    "pe for timm, no pooling": (
        "timm",
        "pe",
        TIMM_PE | {"num_classes": 0, "pool": "mean", "norm": "none", "prefix": 1},
    ),
    "dinov3": ("hf-dinov3", "dinov3", DINOV3),
    "dinov3, gated": ("hf-dinov3", "dinov3", DINOV3 | {"mlp": "gated"}),
    "dinov3, no biases, no registers": ("hf-dinov3", "dinov3", DINOV3 | {"qkv_bias": False, "prefix": 1}),
    "dinov3 for timm": ("timm", "dinov3", DINOV3 | {"qkv_bias": False}),
    "dinov3 for timm, gated, no registers": (
        "timm",
        "dinov3",
        DINOV3 | {"qkv_bias": False, "mlp": "gated", "prefix": 1},
    ),
    "siglip2": ("hf-siglip2", "siglip2", SIGLIP2),
    "siglip2, NaFlex": (
        "hf-siglip2",
        "siglip2",
        SIGLIP2 | {"resampling": "bilinear", "mlp_dim": 96, "pool_mlp_dim": None},
    ),
    "siglip2 for timm": ("timm", "siglip2", SIGLIP2 | {"resampling": "bicubic", "clip": (1, 8, 12), "num_classes": 5}),
    "siglip2 for timm, exact": ("timm", "siglip2", SIGLIP2 | {"resampling": "bicubic", "gelu": "erf"}),
    "siglip2 for timm, no pooling": ("timm", "vit", {"pool": "mean", "gelu": "tanh"}),
    "ast": ("hf-ast", "ast", {"channels": 1, "stride": (1, 3, 2), "eps": 1e-12, "pool_eps": 1e-12}),
    "ast, no head": ("hf-ast", "ast", {"channels": 1, "num_classes": 0, "eps": 1e-12, "pool_eps": 1e-12}),
}


@pytest.mark.parametrize("what", OURS)
def test_a_model_of_ours_is_written_and_read_to_the_same_answers(what):
    dialect, family, settings = OURS[what]
    model = tiny(family, **settings)
    written = to_reference(model, dialect)
    told = {"heads": model.config.stages[0].heads, "clip": model.config.clip} | told_for(model, dialect)
    again = from_reference(written, dialect, **told)
    clip = clip_for(model)
    assert_close(again(clip), model(clip), atol=TOLERANCE, rtol=0)
    assert again.config.family == family


def told_for(model: SpaceTimeTransformer, dialect: str) -> dict[str, object]:
    """What the weights of this model cannot tell."""
    c = model.config
    first = c.stages[0]
    told: dict[str, object] = {"frames": c.embed.frames, "window": getattr(first, "window", None)}
    if dialect == "scenic" and c.family in ("vivit1", "vivit4") and first.pool != "cls":
        told["family"] = c.family
    if c.family == "pe" and first.pool == "map":
        told["heads"] = first.heads, first.pool_heads
    if dialect == "timm" and c.family != "swin2":
        told["gelu"] = first.gelu
    if c.family == "vivit3":
        told["attend"] = first.attend
    return told | ({"stride": c.embed.stride} if c.family == "ast" else {})


@pytest.mark.parametrize(
    ("name", "dialect", "settings"),
    [
        ("vit-P/8", "timm", {"clip": (1, 16, 24)}),
        ("swin2-P/4", "timm", {"clip": (1, 64, 96)}),
        ("timesformer-P/8", "timesformer", {"clip": (4, 16, 24)}),
        ("timesformer-P/8", "hf-timesformer", {"clip": (4, 16, 24)}),
        ("vjepa2-P/8x2", "hf-vjepa2", {"clip": (4, 16, 24)}),
        ("pe-P/8", "pe-core", {"clip": (1, 16, 24)}),
        ("dinov3-P/8", "hf-dinov3", {"clip": (1, 16, 24), "num_classes": 0}),
        ("dinov3-S+/8", "timm", {"clip": (1, 16, 24), "num_classes": 0}),
        ("siglip2-P/8", "hf-siglip2", {"clip": (1, 16, 16), "num_classes": 0}),
        ("ast-P/8", "hf-ast", {"clip": (1, 16, 40), "channels": 1}),
        ("meta-P/8x2", "metatransformer", {"clip": (4, 16, 24)}),
    ],
)
def test_a_fresh_model_made_by_name_can_be_written(name, dialect, settings):
    model = create_model(name, **{"num_classes": 5, **settings})
    assert recognise(to_reference(model, dialect)) == dialect


def refused(model: SpaceTimeTransformer, dialect: str, *values: object) -> None:
    with pytest.raises(ValueError, match=naming(*values)):
        to_reference(model, dialect)


@pytest.mark.parametrize(
    ("dialect", "family", "settings", "said"),
    [
        ("timm", "vivit1", {}, r"family='vivit1' \(it knows 'vit'\)"),
        ("timm", "vit", {"embed": "conv"}, r"embed='conv' \(it knows 'tubelet', 'resnet'\)"),
        ("timm", "vit", {"patch": (2, 4, 4), "clip": (2, 8, 12)}, r"patch=\(2, 4, 4\) \(it knows \(1, 4, 4\)\)"),
        ("timm", "vit", {"stride": (1, 2, 2)}, r"stride=\(1, 2, 2\) \(it knows \(1, 4, 4\)\)"),
        ("timm", "vit", {"gelu": "tanh", "eps": 1e-5}, r"gelu='tanh' \(it knows 'erf'\); eps=1e-05 \(it knows 1e-06\)"),
        ("timm", "vit", {"position": "sincos"}, r"position='sincos' \(it knows 'learned'\)"),
        ("timm", "vit", {"position": "t+h+w"}, r"tables=\('t', 'h', 'w'\) \(it knows \('hw',\)\)"),
        ("timm", "vit", {"pool": "attentive"}, r"pool='attentive' \(it knows 'cls', 'cls,dist', 'mean'\)"),
        ("timm", "vit", {"pool": "cls+dist"}, r"pool='cls\+dist'"),
        (
            "timm",
            "vit",
            {"pool": "cls,dist", "num_classes": 0},
            r"pool='cls,dist' \(it knows 'cls', 'cls\+dist', 'mean'",
        ),
        ("timm", "vit", {"norm": "pooled"}, r"norm='pooled' \(it knows 'tokens'\)"),
        ("timm", "vit", {"attend": "t,hw"}, r"attend='t,hw' \(it knows 'thw'\)"),
        ("timm", "swin2", {"eps": 1e-5}, r"patch=\(2, 4, 4\).*; clip=\(8, 8, 12\) \(it knows \(1, 8, 12\)\)"),
        ("audiomae", "vit", {"embed": "resnet", "layers": (), "widths": (32,), "patch": (1, 4, 4)}, "embed='resnet'"),
        ("scenic", "vivit1", {}, r"gelu='erf' \(it knows 'tanh'\)"),
        ("scenic", "timesformer", VIVIT, r"family='timesformer' \(it knows 'vivit1', 'vivit2', 'vivit3', 'vivit4'\)"),
        ("scenic", "vivit1", VIVIT | {"attend": "hw,t"}, r"attend='hw,t' \(it knows 'thw'\)"),
        ("scenic", "vivit3", VIVIT | {"pool": "cls"}, r"pool='cls' \(it knows 'mean'\)"),
        ("scenic", "vivit1", VIVIT | {"position": "space+time"}, r"tables=\('hw', 't'\) \(it knows \('thw',\)\)"),
        ("scenic", "vivit1", VIVIT | {"prefix": 3}, r"prefix=3 \(it knows 1\)"),
        ("scenic", "vivit2", VIVIT | {"temporal_depth": 0}, r"stages=1 \(it knows 2\)"),
        ("hf-vivit", "vivit1", {}, r"gelu='erf' \(it knows 'tanh'\)"),
        ("hf-vivit", "vivit1", VIVIT | {"pool": "mean"}, r"pool='mean' \(it knows 'cls'\)"),
        ("timesformer", "timesformer", {}, r"patch=\(2, 4, 4\) \(it knows \(1, 4, 4\)\)"),
        ("timesformer", "timesformer", STILL | {"attend": "thw"}, r"attend='thw' \(it knows 't,hw'\)"),
        (
            "timesformer",
            "vivit2",
            STILL | {"temporal_depth": 0},
            r"family='vivit2' \(it knows 'timesformer', 'vidtrans'",
        ),
        ("hf-timesformer", "vivit2", STILL, r"stages=2 \(it knows 1\)"),
        ("hf-videomae", "videomae", {}, r"eps=1e-06 \(it knows 1e-12\); pool_eps=1e-06 \(it knows 1e-05\)"),
        ("hf-videomae", "videomae", {"norm": "tokens"}, r"norm='tokens' \(it knows 'pooled'\)"),
        ("hf-vjepa2", "vjepa2", {"pool": "mean"}, r"pool='mean' \(it knows 'attentive'\)"),
        ("hf-vjepa2", "vjepa2", {"position": "rotary"}, r"position='rotary' \(it knows 'rotary-tiled'\)"),
        ("timm", "pe", PE, r"position='rotary-one' \(it knows 'rotary-scaled'\); resampling='bilinear-sharp'"),
        ("pe-core", "pe", TIMM_PE, r"position='rotary-scaled' \(it knows 'rotary-one'\); resampling='bicubic'"),
        ("pe-core", "pe", PE | {"pool": "mean"}, r"norm='tokens' \(it knows 'none'\)"),
        (
            "pe-core",
            "pe",
            PE | {"mlp": "gated", "cap": 9.0},
            r"cap=9.0 \(it knows 0.0\); mlp='gated' \(it knows 'plain'\)",
        ),
        ("timm", "vit", {"cap": 50.0, "patch": (1, 4, 4)}, r"cap=50.0 \(it knows 0.0\)"),
        ("hf-dinov3", "dinov3", DINOV3 | {"num_classes": 5}, r"num_classes=5 \(it knows 0\)"),
        ("timm", "dinov3", DINOV3 | {"pool": "mean"}, r"pool='mean' \(it knows 'cls'\)"),
        ("timm", "dinov3", DINOV3 | {"position": "rotary"}, r"position='rotary' \(it knows 'rotary-centred'\)"),
        ("hf-siglip2", "siglip2", SIGLIP2 | {"clip": (1, 8, 12)}, r"clip=\(1, 8, 12\) \(it knows \(1, 8, 8\)\)"),
        ("hf-siglip2", "siglip2", SIGLIP2 | {"gelu": "erf"}, r"gelu='erf' \(it knows 'tanh'\)"),
        ("hf-siglip2", "siglip2", SIGLIP2 | {"num_classes": 5}, r"num_classes=5 \(it knows 0\)"),
        ("hf-siglip2", "siglip2", SIGLIP2 | {"pool_mlp_dim": None}, r"pool_mlp_dim=None \(it knows 40\)"),
        ("timm", "siglip2", SIGLIP2, r"resampling='bicubic-sharp' \(it knows 'bicubic'\)"),
        ("hf-ast", "ast", {}, r"channels=3 \(it knows 1\)"),
        ("hf-ast", "ast", {"channels": 1, "norm": "tokens"}, r"norm='tokens' \(it knows 'both'\)"),
        ("metatransformer", "meta", {}, r"eps=1e-06 \(it knows 1e-05\)"),
        ("metatransformer", "meta", {"pool": "cls"}, r"pool='cls' \(it knows 'mean'\)"),
    ],
    ids=str,
)
def test_what_a_dialect_cannot_say_is_refused_with_what_it_knows(dialect, family, settings, said):
    with pytest.raises(ValueError, match=naming(f"'{dialect}'") + f".*{said}"):
        to_reference(tiny(family, **settings), dialect)


def test_positions_that_are_not_videomaes_are_refused():
    model = tiny("videomae", eps=1e-12, pool_eps=1e-5)
    refused(model, "hf-videomae", "VideoMAE's", "positions")


def test_an_unknown_dialect_is_refused():
    values = ("'torch'", "scenic", "timesformer", "hf-timesformer")
    refused(tiny("vit"), "torch", *values)
    with pytest.raises(ValueError, match=naming(*values)):
        from_reference({}, "torch", heads=4, clip=(1, 48, 32))
