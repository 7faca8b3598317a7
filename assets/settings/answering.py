"""Settings of `evergreen serve`."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from assets.settings.section import Section

__all__ = ["ServingSettings"]


class ServingSettings(Section):
    """How requests are answered: `configs/serving.yaml`, settings of the home, whatever the profile of a run."""

    keys: Path | None
    """The file of API keys, one a line: `name:SHA-256 of the key`; None for `serving/keys` in the home."""
    wait_milliseconds: float = Field(ge=0, le=1000)
    """The longest that a record waits for others while the model is idle."""
    batch_records: int = Field(ge=1)
    """The most records answered together; the tokens of one pass through the model are bounded by scoring.yaml."""
    max_request_records: int = Field(ge=1)
    """The most records in a request; more are refused with 422."""
    max_body_bytes: int = Field(ge=1024)
    """A larger body is refused with 413."""
    queue_records: int = Field(ge=1)
    """The most records that wait for the model; a request that would exceed them is refused with 503."""
    timeout_seconds: float = Field(gt=0)
    """A request that has waited for so long is refused with 503."""
    records_per_second: float = Field(gt=0)
    """Records that each key may send per second, on average; more are refused with 429."""
    burst_records: int = Field(ge=1)
    """Records that a key that was silent may send at once."""
    features: Literal["required", "optional"]
    """Whether records are refused with 503 while the online store is down, stale or filled with other definitions;
    otherwise they are answered with what there is, and the answer says so."""
    max_features_age_days: int | None = Field(ge=0)
    """The days after which the online store's as-of makes it stale; None for never."""
    follow_seconds: float = Field(gt=0)
    """Seconds between two looks at the ledger's last entry."""
    load_seconds: float = Field(gt=0)
    """The longest that a former champion answers while its successor is loaded; then requests are refused with 503."""
    canary_share: float = Field(ge=0, le=1)
    """The share of records, by a hash of their ids, that a version which awaits approval answers."""
    shadow_share: float = Field(ge=0, le=1)
    """The share of records, by the same hash, that the newest judged version also answers; only the record keeps it."""
    segment_seconds: float = Field(gt=0)
    """Seconds after which what was asked and answered goes to the lake, and a canary is judged by it."""
    segment_bytes: int = Field(ge=1024)
    """The same, by size."""
    drain_seconds: int = Field(ge=1)
    """The longest that a server which is asked to stop takes to answer what it has accepted."""
