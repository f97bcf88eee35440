"""One encoder for several kinds of clips: images, videos and spectrograms, each with its own tokeniser and head."""

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from tubelet.nn.config import ModelConfig, find_differences
from tubelet.nn.model import SpaceTimeTransformer
from tubelet.nn.position import BOUND, KINDS

ANY_GRID = tuple(kind for kind in KINDS if kind not in BOUND)  # positions that are made for each grid


class SharedEncoder(nn.Module):
    """Several models, one for each kind of clips, whose encoder is one and the same.

    >>> shared = SharedEncoder({"image": image_model, "sound": sound_model})
    >>> shared({"image": images, "sound": spectrograms})  # {"image": logits, "sound": logits}

    The models given become its parts: all get the encoder of the first and its mode, training or eval. Each stays a
    model that runs, and can be saved, by itself: `shared["image"]`. The encoder counts once in `parameters()` and in
    `state_dict()`.

    Source: arXiv 2307.10802 (Meta-Transformer).
    """

    def __init__(self, models: Mapping[str, SpaceTimeTransformer], *, encoder: SpaceTimeTransformer | None = None):
        """
        Args:
            models: by the name of what they see; their encoders must be of the same settings.
            encoder: a model whose encoder's weights are copied for the start, such as one from `from_reference`.

        Raises:
            ValueError: no model, a name that a module cannot have, encoders that differ, or that belong to one grid.
        """
        super().__init__()
        if not models:
            raise ValueError("got no models, expected at least one, by the name of what it sees")
        try:
            parts = nn.ModuleDict(models)
        except KeyError as error:
            raise ValueError(f"no module can be called so ({error.args[0]}): choose another name") from error
        name, first = next(iter(models.items()))
        for other, model in models.items():
            check_same(f"the encoder of {other!r}", model.config, f"that of {name!r}", first.config)
        self.encoders = first.encoders
        if encoder is not None:
            check_same("the encoder given", encoder.config, f"that of {name!r}", first.config)
            self.encoders.load_state_dict(encoder.encoders.state_dict())
        for model in models.values():
            model.encoders = self.encoders
        self.models = parts
        self.register_state_dict_post_hook(drop_copies)
        self.register_load_state_dict_post_hook(miss_no_copies)
        self.train(first.training)

    @property
    def frozen(self) -> bool:
        """Whether nothing in the encoder learns."""
        return not any(parameter.requires_grad for parameter in self.encoders.parameters())

    def freeze(self) -> None:
        """The encoder stops learning and stays in eval mode: no dropout, no drop path, no checkpointing. Tokenisers
        and heads go on learning, through it."""
        self.encoders.requires_grad_(False)
        self.encoders.zero_grad()  # an optimizer would still follow the gradients of the last step
        self.train(self.training)

    def unfreeze(self) -> None:
        """The encoder learns, in the mode of the rest."""
        self.encoders.requires_grad_(True)
        self.train(self.training)

    def train(self, mode: bool = True) -> "SharedEncoder":
        """Training mode, but for a frozen encoder. Call it here: `shared["image"].train()` knows nothing of frozen."""
        super().train(mode)
        if self.frozen:
            self.encoders.eval()
        return self

    def __getitem__(self, name: str) -> SpaceTimeTransformer:
        """The model of one kind of clips. Raises ValueError for a name that is not there."""
        if name not in self.models:
            raise ValueError(f"got clips called {name!r}, expected some of {', '.join(self.models)}")
        return self.models[name]  # type: ignore[return-value]  # all are models

    def forward(self, clips: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Logits (B, classes) for each kind of clips (B, C, T, H, W) given; a step need not have all kinds."""
        return {name: self[name](clip) for name, clip in clips.items()}


def check_same(what: str, config: ModelConfig, like: str, wanted: ModelConfig) -> None:
    """Raises ValueError unless both configurations make the same encoders, and such as are at home on any grid."""
    kinds = {stage.position if stage.kind == "blocks" else "window" for stage in config.stages}
    if bound := sorted(kinds - set(ANY_GRID)):
        raise ValueError(
            f"{what} belongs to the grid of its own clips ({bound[0]} positions), expected {', '.join(ANY_GRID)}: "
            "use the family 'meta', or position='sincos'"
        )
    ours, theirs = ({"stages": one.to_json()["stages"]} for one in (config, wanted))
    if differ := find_differences(ours, theirs):
        raise ValueError(f"{what} is not like {like}: it has {'; '.join(differ)}: make both with the same settings")


def drop_copies(shared: nn.Module, state: dict[str, Tensor], prefix: str, _: object) -> None:
    """The models' names for the encoder's tensors are left out: "encoders." has them."""
    for name in list(state):
        if name.startswith(f"{prefix}models.") and is_copy(shared, name):
            del state[name]


def miss_no_copies(shared: nn.Module, keys: Any) -> None:
    """Loading misses only what `drop_copies` keeps."""
    keys.missing_keys[:] = [name for name in keys.missing_keys if not is_copy(shared, name)]


def is_copy(shared: nn.Module, name: str) -> bool:
    assert isinstance(shared, SharedEncoder)
    return any(f"models.{model}.encoders." in name for model in shared.models)
