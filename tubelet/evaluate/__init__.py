"""`tubelet eval`: how good a run is on what it was not trained on."""

from tubelet.evaluate.clips import Evaluation, evaluate

__all__ = ["Evaluation", "evaluate"]
