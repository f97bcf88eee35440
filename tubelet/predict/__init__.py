"""`tubelet predict`: from a run, or its model file alone, and files to answers."""

from tubelet.predict.predictor import Prediction, Predictor

__all__ = ["Prediction", "Predictor"]
