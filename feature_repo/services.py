"""The set of features that the model is trained and served with."""

from feast import FeatureService
from views import company_statistics, record_request, state_statistics

__all__ = ["model_features"]

model_features = FeatureService(
    name="model_features",
    features=[company_statistics, state_statistics, record_request],
    description="Everything beside the text that the record classifier is trained and served with.",
)
