"""What settings beside weights say, in the words of transformers and of timm."""

from typing import Any

import pytest
from naming import naming

from tubelet.weights.dialects.audiomae import AUDIOMAE
from tubelet.weights.dialects.reference import find_dialect
from tubelet.weights.dialects.settings import Settings
from tubelet.weights.dialects.timm import TIMM

MODEL_ARGS = {"num_classes": 7, "in_chans": 3, "global_pool": "token"}


def timm(architecture: str, **changes: Any) -> dict[str, Any]:
    """config.json as timm writes it."""
    settings = {"input_size": [3, 224, 224], "mean": [0.5, 0.5, 0.5], "std": [0.25, 0.5, 0.5], "crop_pct": 0.9}
    return {"architecture": architecture, "model_args": MODEL_ARGS, "pretrained_cfg": settings, **changes}


def read(config: dict[str, Any]) -> Settings:
    return TIMM.read_settings(config, {})


@pytest.mark.parametrize(
    ("architecture", "heads"),
    [
        ("vit_tiny_patch16_224", 3),
        ("vit_small_patch14_reg4_dinov2", 6),
        ("vit_base_patch16_224", 12),
        ("deit_tiny_distilled_patch16_224", 3),
        ("deit3_large_patch16_384", 16),
        ("vit_huge_patch14_224", 16),
        ("vit_giant_patch14_224", 16),
        ("vit_giant_patch14_dinov2", 24),
        ("vit_base_patch16_gap_224", 16),
        ("vit_base_patch32_plus_256", 14),
        ("swinv2_cr_huge_224", None),
        ("vit_small_r26_s32_224", 6),
        ("vit_tiny_r_s16_p8_224", 3),
        ("swinv2_cr_tiny_ns_224", (3, 6, 12, 24)),
        ("swinv2_cr_large_384", (6, 12, 24, 48)),
        ("vit_so150m_patch16_reg4_gap_256", None),
        ("vit_small_resnet26d_224", None),
        ("resnet50", None),
        ("", None),
    ],
)
def test_heads_by_timms_names(architecture: str, heads: int | tuple[int, ...] | None) -> None:
    assert read(timm(architecture)).heads == heads


def test_timms_settings() -> None:
    assert read(timm("vit_base_patch16_224")) == Settings(
        heads=12, clip=(1, 224, 224), mean=(0.5, 0.5, 0.5), std=(0.25, 0.5, 0.5), crop_share=0.9
    )
    older = {"architecture": "vit_base_patch16_224", **timm("")["pretrained_cfg"]}
    assert read(older) == read(timm("vit_base_patch16_224"))


def test_timms_arguments_come_before_its_defaults() -> None:
    changed = {"img_size": 64, "num_heads": 4}
    known = read(timm("vit_base_patch16_224", model_args=changed))
    assert (known.heads, known.clip) == (4, (1, 64, 64))
    known = read(timm("vit_base_patch16_224", model_args={"img_size": [32, 64]}))
    assert known.clip == (1, 32, 64)


def test_windows_of_swin_are_an_eighth_of_the_grid() -> None:
    assert read(timm("swinv2_cr_tiny_224")).window == (1, 7, 7)
    wide = {"img_size": [256, 512], "patch_size": 2}
    assert read(timm("swinv2_cr_tiny_224", model_args=wide)).window == (1, 16, 32)
    assert read(timm("vit_base_patch16_224")).window is None


def test_audiomae_has_time_in_rows_and_numbers_of_its_own() -> None:
    settings = {"input_size": [1, 1024, 128], "mean": [0.5], "std": [0.5]}
    known = AUDIOMAE.read_settings(timm("vit_base_patch16_224", pretrained_cfg=settings), {})
    assert known == Settings(heads=12, clip=(1, 128, 1024), mean=(-4.2677393,), std=(2 * 4.5689974,))


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (["a", "b"], ("a", "b")),
        ({"1": "b", "0": "a"}, ("a", "b")),
        ({str(i): str(i) for i in range(12)}, tuple(map(str, range(12)))),
        (["crane", "crane", "crane (2)", "crane"], ("crane", "crane (2)", "crane (2) (2)", "crane (3)")),
        ([], None),
        ({}, None),
    ],
)
def test_class_names(names: Any, expected: tuple[str, ...] | None) -> None:
    config = timm("vit_base_patch16_224", label_names=names)
    assert read(config).classes == expected


@pytest.mark.parametrize(
    ("changes", "values"),
    [
        ({"label_names": {"0": "a", "2": "b"}}, ("class names", "['a', None]")),
        ({"label_names": "abc"}, ("class names", "abc")),
        ({"label_names": ["a", 1]}, ("class names", "['a', 1]")),
        ({"model_args": {"num_heads": "many"}}, ("num_heads", "many", 1)),
        ({"model_args": {"num_heads": 0}}, ("num_heads", 0, 1)),
        ({"model_args": {"img_size": [1, 2, 3]}}, ("img_size", "[1, 2, 3]")),
        ({"pretrained_cfg": {"input_size": [3, 224]}}, ("input_size",)),
        ({"pretrained_cfg": {"mean": [0.5, None]}}, ("mean", "[0.5, None]")),
        ({"pretrained_cfg": {"std": 0.5}}, ("std", 0.5)),
        ({"pretrained_cfg": {"crop_pct": "all"}}, ("crop_pct", "all")),
        ({"pretrained_cfg": {"crop_pct": float("nan")}}, ("crop_pct", "nan")),
        ({"pretrained_cfg": []}, None),
        ({"pretrained_cfg": [1]}, ("pretrained_cfg", "[1]")),
        ({"architecture": "vit_base_patch16_clip_quickgelu_224"}, ("GELU",)),
    ],
)
def test_values_that_are_wrong(changes: dict[str, Any], values: tuple[object, ...] | None) -> None:
    config = timm("vit_base_patch16_224") | changes
    if values is None:
        assert read(config).clip is None
    else:
        with pytest.raises(ValueError, match=naming(*values)):
            read(config)


def test_nothing_beside_the_weights_says_nothing() -> None:
    for dialect in ("hf-vivit", "hf-ast", "timm", "scenic", "metatransformer"):
        assert find_dialect(dialect).read_settings({}, {}) == Settings()
