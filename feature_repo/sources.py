"""Where features come from: the published marts, and the request itself.

Paths are relative to the `tables` folder of the offline store, which looks up the version that is current when it
reads: publishing new marts changes no definition.
"""

from feast import Field, FileSource, RequestSource
from feast.types import String

__all__ = ["company_daily", "record", "state_daily"]

company_daily = FileSource(
    name="company_daily",
    path="company_daily/*.parquet",
    timestamp_field="event_timestamp",
    description="One row per company and day on which any of its statistics changes, known from the day's end.",
)

state_daily = FileSource(
    name="state_daily",
    path="state_daily/*.parquet",
    timestamp_field="event_timestamp",
    description="One row per state and day on which any of its statistics changes, known from the day's end.",
)

record = RequestSource(
    name="record",
    schema=[
        Field(name="text", dtype=String),
        Field(name="tags", dtype=String),
        Field(name="channel", dtype=String),
    ],
    description="What the record itself says; an empty string stands for a missing value.",
)
