"""The features: rolling statistics of the company and the state, and what the record itself shows."""

from datetime import timedelta
from pathlib import Path

import pandas as pd
import yaml
from entities import company, state
from feast import FeatureView, Field
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, Int64
from sources import company_daily, record, state_daily

__all__ = ["company_statistics", "record_request", "state_statistics"]

LABELS = tuple(yaml.safe_load((Path(__file__).parents[1] / "configs" / "domain.yaml").read_text())["labels"])

# A statistic holds until the next row of its key, and there is a row whenever one changes: it never expires.
NO_EXPIRY = timedelta(0)


def _statistics(key: str) -> list[Field]:
    return [
        Field(name=f"{key}_records_7d", dtype=Int64, description="Records received in the last 7 days"),
        Field(name=f"{key}_records_30d", dtype=Int64, description="Records received in the last 30 days"),
        Field(name=f"{key}_records_90d", dtype=Int64, description="Records received in the last 90 days"),
        Field(name=f"{key}_text_share", dtype=Float64, description="Share of all records that have a text"),
        Field(name=f"{key}_labels", dtype=Int64, description="Labels known so far"),
        *(
            Field(name=f"{key}_share_{label}", dtype=Float64, description=f"Share of {label} among known labels")
            for label in LABELS
        ),
    ]


company_statistics = FeatureView(
    name="company_statistics",
    entities=[company],
    schema=_statistics("company"),
    source=company_daily,
    ttl=NO_EXPIRY,
    description="How much is complained about the company, and which labels its records went to.",
)

state_statistics = FeatureView(
    name="state_statistics",
    entities=[state],
    schema=_statistics("state"),
    source=state_daily,
    ttl=NO_EXPIRY,
    description="How much is complained in the state, and which labels its records went to.",
)


# Feast keeps the source of this function in its registry and runs it from there: it must not use names of this module.
# Nor can these fields have descriptions: Feast compares them with fields that it infers, which have none.
@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[record],
    schema=[
        Field(name="words_log", dtype=Float64),  # log(1 + words of the text), 4 decimals
        Field(name="redacted_share", dtype=Float64),  # redactions (XXXX) per word of the text, 0 to 1
        Field(name="has_amount", dtype=Float64),  # 1 when the text names an amount in dollars
        Field(name="is_older", dtype=Float64),  # 1 when tagged 'Older American'
        Field(name="is_servicemember", dtype=Float64),  # 1 when tagged 'Servicemember'
        Field(name="via_web", dtype=Float64),  # 1 when submitted through the web site
        Field(name="via_phone", dtype=Float64),  # 1 when submitted by telephone
        Field(name="via_mail", dtype=Float64),  # 1 when submitted by post, fax or e-mail
        Field(name="via_referral", dtype=Float64),  # 1 when referred by another agency
    ],
    mode="pandas",
    description="What the record itself shows, computed alike for training and for serving.",
)
def record_request(inputs: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    texts = inputs["text"].fillna("").tolist()
    tags = inputs["tags"].fillna("")
    channel = inputs["channel"].fillna("").str.lower()
    words = np.array([len(text.split()) for text in texts], dtype=np.int64)
    redactions = np.array([text.count("XXXX") for text in texts], dtype=np.int64)
    return pd.DataFrame(
        {
            # Rounded, because the last bit of a logarithm depends on the processor, and snapshots are named by content.
            "words_log": np.round(np.log1p(words), 4),
            "redacted_share": np.minimum(redactions / np.maximum(words, 1), 1.0),
            "has_amount": np.array(["$" in text for text in texts], dtype=np.float64),
            "is_older": tags.str.contains("Older", regex=False).to_numpy(dtype=np.float64),
            "is_servicemember": tags.str.contains("Servicemember", regex=False).to_numpy(dtype=np.float64),
            "via_web": channel.eq("web").to_numpy(dtype=np.float64),
            "via_phone": channel.eq("phone").to_numpy(dtype=np.float64),
            "via_mail": channel.isin(["postal mail", "fax", "email"]).to_numpy(dtype=np.float64),
            "via_referral": channel.str.contains("referral", regex=False).to_numpy(dtype=np.float64),
        }
    )
