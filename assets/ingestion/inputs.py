"""The model's inputs from a record: the columns that a row of the marts has when the record comes in."""

from assets.ingestion.records import Record
from assets.settings import Domain

__all__ = ["model_inputs"]

_UNKNOWN = "unknown"


def model_inputs(domain: Domain, record: Record) -> dict[str, str | None]:
    """record_id, text, the domain's entities and its request columns, as the marts have them for the same record.

    record_id is stripped of blanks, and None when empty; text has a paragraph per field that is not empty, and is None
    when all are; a missing entity is 'unknown'.
    """
    record_id = (record.fields[domain.id] or "").strip(" ") or None
    text = "\n".join(filter(None, (record.fields[name] for name in domain.text.fields))) or None
    entities = {name: _UNKNOWN if record.fields[name] is None else record.fields[name] for name in domain.entities}
    request = {name: record.fields[name] for name in domain.request}
    return {"record_id": record_id, "text": text, **entities, **request}
