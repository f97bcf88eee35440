"""Regularisation in training: no part of what a model is, so in no configuration."""

from tubelet.nn.model import SpaceTimeTransformer


def regularise(
    model: SpaceTimeTransformer, *, drop_path: float = 0.0, dropout: float = 0.0, checkpointing: bool = False
) -> None:
    """Sets the regularisation of all encoders of a model, instead of what they had.

    Args:
        drop_path: stochastic depth of the last block of each encoder; the rates rise from 0 at its first.
        dropout: in attention and MLP, and of the tokens before the first block.
        checkpointing: activations of a block are computed again in the backward pass: less memory, more time.

    Raises:
        ValueError: a rate that is none.
    """
    for name, rate in (("drop_path", drop_path), ("dropout", dropout)):
        if not 0 <= rate < 1:
            raise ValueError(f"got {name}={rate}, expected at least 0 and below 1")
    model.regularisation = {"drop_path": drop_path, "dropout": dropout, "checkpointing": checkpointing}
    for encoder in model.stack:
        for block, rate in zip(encoder.blocks, drop_path_rates(drop_path, len(encoder.blocks)), strict=True):
            block.drop_path.rate = rate  # type: ignore[union-attr]  # a DropPath
        for layer in encoder.layers:
            layer.checkpointing = checkpointing  # type: ignore[assignment]  # an attribute
    for module in model.encoders.modules():
        if hasattr(module, "p"):  # nn.Dropout, and the attentions
            module.p = dropout  # type: ignore[assignment]  # an attribute


def drop_path_rates(rate: float, depth: int) -> list[float]:
    """Stochastic depth rates, from 0 at the first block to `rate` at the last (arXiv 2103.15691, eq. 10)."""
    return [rate * i / max(depth - 1, 1) for i in range(depth)]
