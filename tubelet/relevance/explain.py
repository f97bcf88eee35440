"""Which parts of a clip an answer rests on."""

from collections.abc import Sequence

import torch
from torch import Tensor

from tubelet.nn.encoder import make_features
from tubelet.nn.grid import Grid
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.relevance.linear_rules import LinearRules

Target = int | Sequence[int] | Tensor | None


def explain(model: SpaceTimeTransformer, clip: Tensor, target: Target = None) -> Tensor:
    """How much each tubelet of a clip adds to an answer: (B, C, T, H, W) -> (B, t, h, w), in units of the logit.

    Layer-wise relevance, as one gradient times its input: attention weights, the deviations of norms and the slopes of
    activations are held at their values for this clip, so that the model is a linear map of its tokens; each token adds
    its own product with that map, below zero where it speaks against the answer.

    What is exact: the relevances of all tokens and what biases, position tables, class tokens and the query of an
    attentive pooling add make the logit, to rounding. What leaks: those other parts belong to no place, and are not
    shown. Where attention looks is held, so a token that only draws attention elsewhere has no relevance. Tokens of
    overlapping or convolutional tokenisers see beyond their own tubelet.

    target: the output to explain: its number, or one for each clip; the largest of each clip if left out.

    Raises:
        ValueError: no model of ours, one without a head, or a target that there is not.
    """
    if not isinstance(model, SpaceTimeTransformer) or not model.config.num_classes:
        found = type(model).__name__ if not isinstance(model, SpaceTimeTransformer) else "a model without a head"
        raise ValueError(f"got {found}, expected a SpaceTimeTransformer with a head, not compiled or wrapped")
    was_training = model.training
    model.eval()
    try:
        with torch.inference_mode(False), torch.enable_grad():
            tokens, grid = model.embed_clip(clip.clone() if clip.is_inference() else clip)
            tokens = tokens.detach().requires_grad_()
            with LinearRules():
                logits = answer(model, tokens, grid)
            chosen = choose(logits.detach(), target)
            (slopes,) = torch.autograd.grad(logits.gather(1, chosen[:, None]).sum(), tokens)
    finally:
        model.train(was_training)
    return (slopes * tokens.detach()).sum(2).unflatten(1, tuple(grid))


def answer(model: SpaceTimeTransformer, tokens: Tensor, grid: Grid) -> Tensor:
    """Tokens before the first encoder, (B, N, D) -> logits (B, outputs)."""
    return model.head(make_features(model.stack, tokens, grid))


def choose(logits: Tensor, target: Target) -> Tensor:
    """The number of an output for each clip, (B,)."""
    if target is None:
        return logits.argmax(1)
    chosen = torch.as_tensor(target, device=logits.device)
    if chosen.dtype.is_floating_point or chosen.dtype == torch.bool or chosen.ndim > 1:
        raise ValueError(f"got target={target!r}, expected the number of an output, or one for each clip")
    if chosen.ndim and len(chosen) != len(logits):
        raise ValueError(f"got target={target!r} for {len(logits)} clips, expected one for each, or one for all")
    if chosen.numel() and not 0 <= int(chosen.min()) <= int(chosen.max()) < logits.shape[1]:
        raise ValueError(f"got target={target!r}, the model has outputs 0 to {logits.shape[1] - 1}")
    return chosen.long().expand(len(logits))
