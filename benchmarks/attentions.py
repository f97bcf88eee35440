"""Which of torch's kernels serves each attention that a model asks for; the plain one must not come in silence.

torch chooses a kernel by device, dtype, width of a head and mask, and says nothing where no fused one will do.
`find_attentions` runs a model and looks at what torch calls.
"""

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

KERNELS = {
    "_scaled_dot_product_flash_attention": "flash",
    "_scaled_dot_product_flash_attention_for_cpu": "flash",
    "_scaled_dot_product_efficient_attention": "efficient",
    "_scaled_dot_product_cudnn_attention": "cudnn",
    "_scaled_dot_product_fused_attention_overrideable": "fused",
}


class Calls(TorchDispatchMode):
    """The fused kernel that is called inside it; "math" where there was none."""

    kernel = "math"

    def __torch_dispatch__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        self.kernel = KERNELS.get(function.overloadpacket.__name__, self.kernel)
        return function(*args, **(kwargs or {}))


class Asked(NamedTuple):
    """An attention: its kernel, dtype, width of a head, queries and keys, and its mask: "", "given" or "learned"."""

    kernel: str
    dtype: str
    head_dim: int
    queries: int
    keys: int
    mask: str
    why_not_flash: str = ""


class Look(TorchFunctionMode):
    """Counts the attentions inside it, each with the kernel that ran."""

    def __init__(self) -> None:
        super().__init__()
        self.found: Counter[Asked] = Counter()

    def __torch_function__(self, function: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        named = kwargs or {}
        if function is not F.scaled_dot_product_attention:
            return function(*args, **named)
        q, k, v = args[:3]
        mask = args[3] if len(args) > 3 else named.get("attn_mask")
        with Calls() as calls, torch._C.DisableTorchFunction():
            made = function(*args, **named)
        what = "" if mask is None else "learned" if mask.requires_grad else "given"
        sizes = q.shape[-1], q.shape[-2], k.shape[-2]
        dtype = str(q.dtype).removeprefix("torch.")
        why = explain_flash(q, k, v, mask) if q.is_cuda and calls.kernel != "flash" else ""
        self.found[Asked(calls.kernel, dtype, *sizes, what, why)] += 1
        return made


def explain_flash(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None) -> str:
    """Why the flash kernel of a GPU does not take an attention, in torch's words."""
    asked = torch.backends.cuda.SDPAParams(q, k, v, mask, 0.0, False, False)
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        torch.backends.cuda.can_use_flash_attention(asked, debug=True)
    return "; ".join(str(one.message).split(" (Triggered")[0] for one in said)


def find_attentions(forward: Callable[[], Tensor], *, learns: bool) -> Counter[Asked]:
    """The attentions of a forward pass, and how often each; `learns`: gradients will be asked for.

    Attention that is made of plain products, as that with capped scores is, asks torch for none and is not here.
    """
    with Look() as look, torch.set_grad_enabled(learns):
        forward()
    return look.found
