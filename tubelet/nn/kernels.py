"""Linear layers, with the GELU that may follow: one fused kernel on a processor that only answers, not learns."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.processor import fuses_linear

GELUS = {"erf": "none", "tanh": "tanh"}  # as torch calls them


def linear(x: Tensor, weight: Tensor, bias: Tensor | None, *, gelu: str | None = None) -> Tensor:
    """(..., D) -> (..., E) with `weight` (E, D), then, if asked for, a GELU: "erf" (exact) or "tanh" (JAX's)."""
    if only_answers(x, weight) and fuses_linear(x.dtype):
        activation = ("gelu", GELUS[gelu]) if gelu else ("none", "")
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, activation[0], [], activation[1])
    x = F.linear(x, weight, bias)
    return F.gelu(x, approximate=GELUS[gelu]) if gelu else x


def only_answers(x: Tensor, other: Tensor) -> bool:
    """Whether nothing needs the single steps of a product of two on the CPU: no gradient, tracer, counter or cast."""
    learns = torch.is_grad_enabled() and (x.requires_grad or other.requires_grad)
    plain = type(x) is Tensor and type(other) in (Tensor, nn.Parameter)
    return bool(
        plain
        and not learns
        and x.device.type == other.device.type == "cpu"
        and x.dtype == other.dtype
        and torch.backends.mkldnn.enabled
        and not torch.is_autocast_enabled("cpu")
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()
        and not torch._C._len_torch_dispatch_stack()
    )


class Linear(nn.Linear):
    """(..., D) -> (..., E), then the GELU, if any."""

    def __init__(self, dim: int, out: int, *, gelu: str | None = None):
        super().__init__(dim, out)
        if gelu not in (None, *GELUS):
            raise ValueError(f"unknown gelu {gelu!r}: expected 'erf' (exact) or 'tanh' (approximate)")
        self.gelu = gelu

    def forward(self, x: Tensor) -> Tensor:
        return linear(x, self.weight, self.bias, gelu=self.gelu)
