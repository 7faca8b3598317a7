"""Features of a record's text, for a domain without an on-demand view of its own."""

import pandas as pd
from feast import Field, RequestSource
from feast.on_demand_feature_view import on_demand_feature_view
from feast.types import Float64, String

__all__ = ["record", "record_request"]

record = RequestSource(
    name="record",
    schema=[Field(name="text", dtype=String)],
    description="Columns of the record itself; a missing text is an empty string.",
)


# Feast keeps this function's source in its registry and runs it from there: it must not use names from this module.
# These fields cannot have descriptions: Feast compares them with the fields it infers, which have none.
@on_demand_feature_view(  # type: ignore[untyped-decorator]
    sources=[record],
    schema=[
        Field(name="words_log", dtype=Float64),  # log(1 + words of the text), 4 decimals
        Field(name="characters_log", dtype=Float64),  # log(1 + characters of the text), 4 decimals
    ],
    mode="pandas",
    description="The length of the text, computed in the same way for training and serving.",
)
def record_request(inputs: pd.DataFrame) -> pd.DataFrame:
    import numpy as np
    import pandas as pd

    texts = inputs["text"].fillna("").tolist()
    # Rounded because the last bit of a logarithm depends on the processor, and snapshots are named by their content.
    return pd.DataFrame(
        {
            "words_log": np.round(np.log1p([len(text.split()) for text in texts]), 4),
            "characters_log": np.round(np.log1p([len(text) for text in texts]), 4),
        }
    )
