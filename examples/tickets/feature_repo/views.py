"""Features of a ticket itself. Modules in this folder do not import each other."""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, String

__all__ = ["record", "record_request"]

record = RequestSource(
    name="record",
    schema=[
        Field(name="text", dtype=String),
        Field(name="plan", dtype=String),
        Field(name="channel", dtype=String),
        Field(name="language", dtype=String),
    ],
    description="Values of the ticket itself; an empty string means a missing value.",
)


# Feast keeps the source of this function in its registry and runs it from there: it must not use names of this module.
# Nor can these fields have descriptions: Feast compares them with fields that it infers, which have none.
@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[record],
    schema=[
        Field(name="words_log", dtype=Float64),  # log(1 + words of the text), 4 decimals
        Field(name="asks", dtype=Float64),  # 1 when the text has a question mark
        Field(name="is_german", dtype=Float64),
        Field(name="pays", dtype=Float64),  # 1 unless the plan is free
        Field(name="via_chat", dtype=Float64),
        Field(name="via_phone", dtype=Float64),
    ],
    mode="pandas",
    description="Features of the ticket itself, computed in the same way for training and for serving.",
)
def record_request(inputs: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    texts = inputs["text"].fillna("")
    return pd.DataFrame(
        {
            # Rounded, because the last bit of a logarithm depends on the processor, and snapshots are named by content.
            "words_log": np.round(np.log1p(texts.str.split().str.len().to_numpy(dtype=np.float64)), 4),
            "asks": texts.str.contains("?", regex=False).to_numpy(dtype=np.float64),
            "is_german": inputs["language"].eq("de").to_numpy(dtype=np.float64),
            "pays": inputs["plan"].ne("free").to_numpy(dtype=np.float64),
            "via_chat": inputs["channel"].eq("chat").to_numpy(dtype=np.float64),
            "via_phone": inputs["channel"].eq("phone").to_numpy(dtype=np.float64),
        }
    )
