"""Today's encoders: what is theirs alone, beside the laws that all families share."""

import pytest
import torch
from goldens import CASES, golden
from naming import naming
from tiny import tiny

from tubelet.nn import create_model
from tubelet.nn.cost import count_parameters
from tubelet.weights import to_reference
from tubelet.weights.dialects.rename import ForeignState
from tubelet.weights.dialects.vjepa21 import VJEPA21

# from the published files
VJEPA21_PARAMETERS = {"B": 86_833_152, "L": 304_680_960, "g": 1_013_267_968, "G": 1_845_216_768}
TENSORS = {"B": 158, "L": 302, "g": 494, "G": 590}


@pytest.mark.parametrize("size", VJEPA21_PARAMETERS)
def test_vjepa21_has_the_weights_that_were_published(size: str) -> None:
    with torch.device("meta"):
        model = create_model(f"vjepa21-{size}/16x2", num_classes=0)
        folded = 2 * model.num_features  # what is added to all tokens of a video, of an image: in our biases
        assert count_parameters(model) + folded == VJEPA21_PARAMETERS[size]
        assert len(model.state_dict()) + 2 == TENSORS[size]


@pytest.mark.parametrize(("dim", "depth", "heads"), [(768, 12, 12), (1024, 24, 16), (1408, 40, 22), (1664, 48, 26)])
def test_vjepa21_knows_the_sizes_that_were_published(dim: int, depth: int, heads: int) -> None:
    state = {"patch_embed.proj.bias": torch.zeros(dim)}
    state |= {f"blocks.{i}.norm1.bias": torch.zeros(1) for i in range(depth)}
    found = VJEPA21.published(ForeignState(state))
    assert (found.heads, found.clip) == (heads, (16, 384, 384))
    assert VJEPA21.published(ForeignState(golden("vjepa21_encoder")[0])).heads is None


@pytest.mark.parametrize("size", [(4, 16, 64), (4, 64, 16), (1, 16, 16), (2, 16, 16)])
def test_vjepa21_answers_for_one_row_or_column(size: tuple[int, int, int]) -> None:
    """Where the original divides by zero."""
    model = CASES["vjepa21_encoder"].read(golden("vjepa21_encoder")[0])
    with torch.inference_mode():
        tokens, _ = model.tokens(torch.randn(1, 3, *size))
    assert tokens.isfinite().all()


def test_levels_rise_to_the_answer_and_are_no_part_of_what_learns() -> None:
    model = tiny("vjepa21")
    clip = torch.randn(2, 3, *model.input_size)
    first, last = model.level_features(clip)
    tokens, grid = model.tokens(clip)
    assert first.shape == last.shape == (2, *grid, model.num_features)
    torch.testing.assert_close(last.flatten(1, 3), tokens)
    assert not torch.allclose(first, last, atol=0.1)
    with pytest.raises(ValueError, match=naming("swin2", "block_features")):
        tiny("swin2").level_features(clip)


def test_an_image_and_a_video_go_each_by_its_own_kernel() -> None:
    model = tiny("vjepa21")
    with torch.no_grad():
        model.embed.image.proj.weight.zero_()
        video, image = (model.embed_clip(torch.randn(1, 3, frames, 8, 12))[0] for frames in (2, 1))
    assert video.std(1).max() > 0.1
    assert image.std(1).max() == 0


def test_a_head_has_no_place_in_vjepa21() -> None:
    with pytest.raises(ValueError, match=naming("vjepa21", "num_classes=5")):
        to_reference(tiny("vjepa21", levels=(0, 1)), "vjepa21")
