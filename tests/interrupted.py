"""A pre-training that is interrupted before chosen steps, and goes on after each."""

from typing import Any

import pytest

from tubelet.pretrain import pretrain
from tubelet.pretrain.config import PretrainConfig
from tubelet.pretrain.pretrain import Learner, PretrainingRun


def go_on_to_the_end(config: PretrainConfig, *, stops: tuple[int, ...]) -> PretrainingRun:
    """The run of a pre-training that never got through the steps in `stops` at the first time."""
    take_step, left = Learner.take_step, [*stops]

    def take_or_stop(self: Learner, batch: Any) -> dict[str, float]:
        if left and self.step == left[0]:
            raise KeyboardInterrupt
        return take_step(self, batch)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Learner, "take_step", take_or_stop)
        while left:
            with pytest.raises(KeyboardInterrupt):
                pretrain.pretrain(config, show=False)
            del left[0]
        return pretrain.pretrain(config, show=False)
