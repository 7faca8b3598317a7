"""The set of features that the model is trained and served with."""

from feast import FeatureService
from views import company_statistics, complaint_request, state_statistics

__all__ = ["complaint_routing"]

complaint_routing = FeatureService(
    name="complaint_routing",
    features=[company_statistics, state_statistics, complaint_request],
    description="Everything beside the text that the complaint router is trained and served with.",
)
