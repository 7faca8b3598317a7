"""Features of a complaint itself. Modules in this folder do not import each other."""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, String

__all__ = ["record", "record_request"]

record = RequestSource(
    name="record",
    schema=[
        Field(name="text", dtype=String),
        Field(name="tags", dtype=String),
        Field(name="channel", dtype=String),
    ],
    description="Values of the record itself; an empty string means a missing value.",
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
        Field(name="via_web", dtype=Float64),  # 1 when submitted on the website
        Field(name="via_phone", dtype=Float64),  # 1 when submitted by telephone
        Field(name="via_mail", dtype=Float64),  # 1 when submitted by post, fax or e-mail
        Field(name="via_referral", dtype=Float64),  # 1 when referred by another agency
    ],
    mode="pandas",
    description="Features of the record itself, computed in the same way for training and for serving.",
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
