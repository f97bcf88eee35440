"""What is asked about a made-up world: where each cell of it goes, what moves by itself, and what moves how."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from tubelet.nn.create import format_name
from tubelet.nn.encoder import Encoder
from tubelet.nn.grid import triple
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.pretrain.crates import BODY, CAMERA, KINDS, Crate, half
from tubelet.pretrain.lesson import one_encoder
from tubelet.synthetic.motions import DESCRIBED, POINTS

HIDDEN = 256
BODY_SIZE, WAY_SIZE = DESCRIBED * POINTS * 3, DESCRIBED * 4
# of the losses, chosen so that none outweighs the others at the beginning
WEIGHTS = {"flow": 0.5, "own": 0.15, "what": 0.2, "body": 5.0, "way": 5.0}
EXPLAINED = ("flow", "body", "way")  # of which it is told how much is


class MotionHead(nn.Module):
    """Asks a model's tokens, and what they are pooled to; thrown away after pre-training.

    Each token answers for the cells that it covers, the pooled one for the whole.

    Raises ValueError for a model that is not one encoder over space and time.
    """

    def __init__(self, model: SpaceTimeTransformer):
        super().__init__()
        encoder = one_encoder(model, "vivit1-N/12x4")
        if encoder.over != "thw":
            raise ValueError(f"{format_name(model.config)}: expected an encoder over space and time, as of vivit1")
        patch = triple(model.embed.patch, "patch")
        t, h, w = self.cells = tuple(size // cell for size, cell in zip(patch, half(patch), strict=True))
        self.local = nn.Linear(model.config.stages[0].dim, t * h * w * 3)
        answers = BODY_SIZE + 2 * WAY_SIZE + len(KINDS)
        self.whole = nn.Sequential(nn.Linear(encoder.out_dim, HIDDEN), nn.GELU(), nn.Linear(HIDDEN, answers))

    def forward(self, model: SpaceTimeTransformer, clips: Tensor) -> tuple[Tensor, Tensor]:
        """(B, 3, T, H, W) -> flow and own of each cell, (B, t, h, w, 3), and the answers for the whole, (B, ...)."""
        encoder = model.encoders[0]
        assert isinstance(encoder, Encoder)
        tokens, grid = encoder.tokens(*model.embed_clip(clips))
        local = self.local(tokens[:, encoder.prefix_size :]).unflatten(1, tuple(grid)).unflatten(-1, (*self.cells, 3))
        cells = local.permute(0, 1, 4, 2, 5, 3, 6, 7).flatten(5, 6).flatten(3, 4).flatten(1, 2)
        return cells, self.whole(encoder.pool(tokens)[:, 0])


def measure(crate: Crate, cells: Tensor, whole: Tensor) -> dict[str, Tensor]:
    """The losses by name of answers to a crate, as a MotionHead gives them."""
    bodies = crate.kind == BODY
    body, way_of_camera, way_of_thing, kind = whole.split([BODY_SIZE, WAY_SIZE, WAY_SIZE, len(KINDS)], 1)
    way = torch.where((crate.kind == CAMERA)[:, None], way_of_camera, way_of_thing)
    return {
        "flow": F.smooth_l1_loss(cells[..., :2], squash(crate.flow)),
        "own": F.binary_cross_entropy_with_logits(cells[..., 2], crate.own),
        "what": F.cross_entropy(kind, crate.kind),
        "body": smooth(body[bodies], crate.body[bodies].flatten(1), beta=0.2),
        "way": smooth(way[~bodies], crate.way[~bodies].flatten(1), beta=0.1),
    }


def know_nothing(crate: Crate) -> tuple[Tensor, Tensor]:
    """The answers of one who says that nothing moves, and that all bodies move alike, as their mean."""
    bodies = crate.kind == BODY
    cells = torch.zeros(*crate.own.shape, 3, device=crate.own.device)
    cells[..., 2] = crate.own.mean().clamp(1e-3, 1 - 1e-3).logit()
    whole = torch.zeros(len(bodies), BODY_SIZE + 2 * WAY_SIZE + len(KINDS), device=crate.own.device)
    if bodies.any():
        whole[:, :BODY_SIZE] = crate.body[bodies].mean(0).flatten()
    return cells, whole


def squash(flow: Tensor) -> Tensor:
    """What is asked of a flow in px: small ones count about as they are, of large ones their logarithm."""
    return torch.asinh(2 * flow)


def smooth(answer: Tensor, truth: Tensor, *, beta: float) -> Tensor:
    """Huber's loss, 0 of none."""
    return F.smooth_l1_loss(answer, truth, beta=beta, reduction="sum") / max(1, truth.numel())
