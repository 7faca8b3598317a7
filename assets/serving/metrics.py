"""What the server counts, in Prometheus' format."""

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

__all__ = ["Metrics"]

_SECONDS = (0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0)
_RECORDS = (1, 2, 4, 8, 16, 32, 64, 128)


class Metrics:
    """The metrics of a server, in a registry of its own; all are called `evergreen_serving_*`."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "evergreen_serving_requests", "Requests by path and status.", ["path", "status"], registry=self.registry
        )
        self.seconds = Histogram(
            "evergreen_serving_request_seconds", "Seconds from a request to its answer.", ["path"],
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.batches = Histogram(
            "evergreen_serving_batch_records", "Records answered together.", buckets=_RECORDS, registry=self.registry
        )
        self.model_seconds = Histogram(
            "evergreen_serving_batch_seconds", "Seconds that a batch took: features and model.",
            buckets=_SECONDS, registry=self.registry,
        )  # fmt: skip
        self.answers = Counter(
            "evergreen_serving_answers", "Answers by version, role and state of the features.",
            ["version", "role", "features"], registry=self.registry,
        )  # fmt: skip
        self.withdrawn = Counter(
            "evergreen_serving_canaries_withdrawn", "Canaries withdrawn by a verdict.", registry=self.registry
        )
        self.landed = Counter("evergreen_serving_segments_landed", "Segments in the lake.", registry=self.registry)

    def watch(self, name: str, what: str, value: Callable[[], float]) -> None:
        """A gauge that is asked for its value whenever it is read."""
        Gauge(f"evergreen_serving_{name}", what, registry=self.registry).set_function(value)

    def text(self) -> bytes:
        return generate_latest(self.registry)
