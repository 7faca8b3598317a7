"""What a request may say, in the domain's own fields, and the description of it for OpenAPI."""

from datetime import UTC, datetime
from functools import partial
from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, create_model

from assets.exceptions import EvergreenError
from assets.ingestion.records import Record, make_record
from assets.settings import Domain, IngestionSettings, ServingSettings
from assets.settings.domain import SourceField

__all__ = ["Contract", "Feedback", "Unfit"]

_STRICT = ConfigDict(extra="forbid", coerce_numbers_to_str=True)


class Unfit(EvergreenError):  # noqa: N818 - reads as what it says
    """A record that cannot be taken: the field, and what is wrong with it."""

    def __init__(self, field: str, fault: str) -> None:
        self.field, self.fault = field, fault
        super().__init__(f"{field}: {fault}")


class Feedback(BaseModel):
    """The true label of a record that was asked about, and any of the domain's outcomes."""

    model_config = _STRICT

    record_id: str
    label: str
    outcomes: dict[str, str]


class Contract:
    """The requests of a domain: `predict` and `feedback` are pydantic models of their bodies."""

    def __init__(self, domain: Domain, reading: IngestionSettings, serving: ServingSettings) -> None:
        self._domain, self._longest = domain, reading.max_record_bytes
        fields = domain.source.fields
        shown: Any = {"examples": [domain.example]} if domain.example else {}
        asked: dict[str, Any] = {name: self._field(name, field) for name, field in fields.items() if not field.outcome}
        record = create_model("Record", __config__=_STRICT | ConfigDict(json_schema_extra=shown), **asked)
        records = Annotated[list[record], Field(min_length=1, max_length=serving.max_request_records)]  # type: ignore[valid-type]
        self.predict = create_model("Predict", __config__=_STRICT, records=(records, ...))
        said: dict[str, Any] = {name: _outcome(fields[name]) for name in domain.outcomes}
        said["record_id"] = _text(required=True), Field(description=f"The {domain.id} of the {domain.record.one}.")
        label = Field(description=f"The true {domain.label.one}.", examples=[*domain.labels][:1])
        said["label"] = _label(domain), label
        self.feedback = create_model("Feedback", __config__=_STRICT, **said)

    def records(self, body: bytes) -> list[Record]:
        """The records of a request. Raises pydantic's ValidationError, and Unfit for one that is too long."""
        now = datetime.now(UTC)
        asked: Any = self.predict.model_validate_json(body)
        return [self._record(place, row.model_dump(), now) for place, row in enumerate(asked.records)]

    def said(self, body: bytes) -> Feedback:
        """The feedback of a request. Raises pydantic's ValidationError."""
        values = self.feedback.model_validate_json(body).model_dump(exclude_none=True)
        known = {name: values.pop(name) for name in ("record_id", "label")}
        return Feedback(**known, outcomes=values)

    def _record(self, place: int, values: dict[str, str | None], now: datetime) -> Record:
        received = self._domain.received.field
        if values[received] is None:
            day = self._domain.source.fields[received].type == "day"
            values[received] = now.date().isoformat() if day else now.replace(tzinfo=None).isoformat(" ", "seconds")
        fields = [values.get(name) or "" for name in self._domain.source.fields]
        if len("".join(fields).encode()) > self._longest:
            raise Unfit(f"records.{place}", f"longer than the {self._longest} bytes of a record")
        record = make_record(self._domain, fields, place + 1)
        assert isinstance(record, Record), "texts are UTF-8 without NUL"
        return record

    def _field(self, name: str, field: SourceField) -> Any:
        example = [self._domain.example[name]] if name in self._domain.example else None
        about = partial(Field, description=_described(field), examples=example)
        if name == self._domain.id:
            return _text(required=True), about()
        if name == self._domain.received.field:
            kind = Annotated[str | None, BeforeValidator(_blank), AfterValidator(partial(_time, field))]
            return kind, about(default=None)
        return _text(required=False), about(default=None)


def _text(*, required: bool) -> Any:
    return Annotated[str, AfterValidator(_present)] if required else Annotated[str | None, BeforeValidator(_blank)]


def _outcome(field: SourceField) -> Any:
    return _text(required=False), Field(default=None, description=_described(field))


def _described(field: SourceField) -> str:
    kinds = {"text": "Text", "number": "A number", "day": "A day", "instant": "An instant, UTC unless it names a zone"}
    return f"{kinds[field.type]}; the source calls it {' or '.join(field.names)}." if field.names else kinds[field.type]


def _plain(value: str) -> str:
    if "\0" in value:
        raise ValueError("has a NUL character")
    return value


def _blank(value: Any) -> Any:
    """An empty text is a missing one, as in a file."""
    return (_plain(value) or None) if isinstance(value, str) else value


def _present(value: str) -> str:
    if not _plain(value).strip():
        raise ValueError("is empty")
    return value


def _label(domain: Domain) -> Any:
    def known(value: str) -> str:
        if value not in domain.labels:
            raise ValueError(f"is not one of {', '.join(domain.labels)}")
        return value

    return Annotated[str, AfterValidator(known)]


def _time(field: SourceField, value: str | None) -> str | None:
    """As the warehouse reads it: ISO 8601, or one of the domain's formats."""
    if value is None or any(_is_written(value, form) for form in field.formats):
        return value
    try:
        datetime.fromisoformat(value.strip())
    except ValueError:
        raise ValueError(
            f"is no {field.type}; write {'2024-07-01' if field.type == 'day' else '2024-07-01T13:00:00Z'}"
        ) from None
    return value


def _is_written(value: str, form: str) -> bool:
    try:
        datetime.strptime(value, form)
    except ValueError:
        return False
    return True
