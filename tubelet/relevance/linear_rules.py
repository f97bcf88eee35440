"""A network as the linear map that it is at one clip: what weighs or scales is held, what is weighed may move."""

from collections.abc import Callable, Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.overrides import TorchFunctionMode


def hold_attention(q: Tensor, k: Tensor, v: Tensor, *rest: Any, **more: Any) -> Tensor:
    """Attention whose weights are held: its output is a weighted mean of the values.

    Source: arXiv 2202.07304, section 3.1 (CP-LRP).
    """
    more = {name: value.detach() if isinstance(value, Tensor) else value for name, value in more.items()}
    rest = tuple(value.detach() if isinstance(value, Tensor) else value for value in rest)
    return F.scaled_dot_product_attention(q.detach(), k.detach(), v, *rest, **more)


def hold_deviation(
    x: Tensor, shape: Any, weight: Tensor | None = None, bias: Tensor | None = None, eps: float = 1e-5
) -> Tensor:
    """Layer norm whose deviation is held: to take the mean away is linear. Source: arXiv 2202.07304, section 3.2."""
    axes = tuple(range(-len(shape), 0))
    centred = x - x.mean(axes, keepdim=True)
    x = centred / (centred.detach().square().mean(axes, keepdim=True) + eps).sqrt()
    x = x if weight is None else x * weight
    return x if bias is None else x + bias


def hold_slope(x: Tensor, *, approximate: str = "none") -> Tensor:
    """GELU as the share of its input that it lets through, held. Source: arXiv 2402.05602, section 3.2."""
    still = x.detach()
    share = torch.where(still == 0, 0.5, F.gelu(still, approximate=approximate) / still)
    return x * share


def hold_root(x: Tensor, shape: Any, weight: Tensor | None = None, eps: float | None = None) -> Tensor:
    """RMS norm whose root is held."""
    axes = tuple(range(-len(shape), 0))
    fine = torch.finfo(x.dtype).eps if eps is None else eps
    x = x / (x.detach().square().mean(axes, keepdim=True) + fine).sqrt()
    return x if weight is None else x * weight


def hold_group(x: Tensor, groups: int, weight: Tensor, bias: Tensor, eps: float) -> Tensor:
    """Group norm whose deviation is held, (B, D, N) -> same."""
    parts = x.unflatten(1, (groups, -1))
    return hold_deviation(parts, parts.shape[2:], eps=eps).flatten(1, 2) * weight[:, None] + bias[:, None]


def hold_sigmoid(x: Tensor, *, inplace: bool = False) -> Tensor:
    """SiLU as the share of its input that it lets through, held."""
    return x * x.detach().sigmoid()


def hold_gate(gate: Tensor, value: Tensor) -> Tensor:
    """A gate that is held lets through what moves."""
    return gate.detach() * value


def hold_weights(scores: Tensor, *how: Any) -> Tensor:
    """Softmax, whose results weigh something and are held."""
    return scores.detach().softmax(*how)


def hold_length(x: Tensor, **how: Any) -> Tensor:
    """Vectors brought to length 1, by a length that is held."""
    dim, least = how.get("dim", 1), how.get("eps", 1e-12)
    return x / x.detach().norm(dim=dim, keepdim=True).clamp(min=least)


RULES: Mapping[Any, Callable[..., Tensor]] = {
    F.scaled_dot_product_attention: hold_attention,
    torch.Tensor.softmax: hold_weights,
    F.layer_norm: hold_deviation,
    F.rms_norm: hold_root,
    F.group_norm: hold_group,
    F.gelu: hold_slope,
    F.silu: hold_sigmoid,
    F.normalize: hold_length,
    torch.multiply: hold_gate,
}


class LinearRules(TorchFunctionMode):
    """Inside, torch's functions are as in RULES. The output of a network is the same; its gradient is that of the
    linear map which the network is at this clip."""

    def __torch_function__(
        self, function: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        rule = RULES.get(function)
        if rule is None:
            return function(*args, **(kwargs or {}))
        with torch._C.DisableTorchFunction():
            return rule(*args, **(kwargs or {}))
