"""What a record's text shows, in a domain that has no on-demand view of its own."""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, String

__all__ = ["record", "record_request"]

record = RequestSource(
    name="record",
    schema=[Field(name="text", dtype=String)],
    description="What the record itself says; an empty string stands for a missing text.",
)


# Feast keeps the source of this function in its registry and runs it from there: it must not use names of this module.
# Nor can these fields have descriptions: Feast compares them with fields that it infers, which have none.
@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[record],
    schema=[
        Field(name="words_log", dtype=Float64),  # log(1 + words of the text), 4 decimals
        Field(name="characters_log", dtype=Float64),  # log(1 + characters of the text), 4 decimals
    ],
    mode="pandas",
    description="How long the text is, computed alike for training and for serving.",
)
def record_request(inputs: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    texts = inputs["text"].fillna("").tolist()
    # Rounded, because the last bit of a logarithm depends on the processor, and snapshots are named by content.
    return pd.DataFrame(
        {
            "words_log": np.round(np.log1p([len(text.split()) for text in texts]), 4),
            "characters_log": np.round(np.log1p([len(text) for text in texts]), 4),
        }
    )
