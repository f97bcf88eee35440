"""No attention falls to torch's plain kernel in silence: here on a processor, on a GPU by benchmarks/gpu.py."""

import sys
from pathlib import Path

import pytest
import torch
from tiny import clip_for, tiny

sys.path.append(str(Path(__file__).parent.parent / "benchmarks"))

from attentions import find_attentions

from tubelet.nn import FAMILIES

CAPPED = ("videoprism",)  # no fused kernel knows its scores: they are plain products, and ask for none


@pytest.mark.parametrize("learns", [False, True], ids=["answers", "learns"])
@pytest.mark.parametrize("family", FAMILIES)
def test_every_attention_is_served_by_a_fused_kernel(family: str, learns: bool) -> None:
    model = tiny(family).train(learns)
    clip = clip_for(model)
    found = find_attentions(lambda: model(clip), learns=learns)
    if family in CAPPED:
        assert not found
        return
    assert found
    masks = {asked.mask for asked in found}
    if family != "swin2":
        assert ({asked.kernel for asked in found}, masks) == ({"flash"}, {""})
    elif learns:  # the gradient of a learned bias is what no kernel of torch for processors gives
        assert ({asked.kernel for asked in found}, masks) == ({"math"}, {"learned"})
    else:
        assert ({asked.kernel for asked in found}, masks) == ({"flash"}, {"given"})


def test_the_check_finds_the_plain_kernel() -> None:
    q = torch.randn(1, 2, 3, 4)
    mask = torch.zeros(3, 3, requires_grad=True)
    ask = torch.nn.functional.scaled_dot_product_attention
    assert [(one.kernel, one.mask) for one in find_attentions(lambda: ask(q, q, q, mask), learns=True)] == [
        ("math", "learned")
    ]
    (one,) = find_attentions(lambda: ask(q, q[:, :, :2], q[:, :, :2]), learns=False)
    assert one == ("flash", "float32", 4, 3, 2, "", "")
