"""What the server says about its interface in OpenAPI, besides the fields of the domain."""

from typing import Any

__all__ = ["ANSWERS", "TAKEN", "answered", "body"]

_TEXT, _MAYBE = {"type": "string"}, {"type": ["string", "null"]}
ANSWERS = {
    "request_id": _TEXT,
    "answers": {
        "type": "array",
        "items": {
            "type": "object",
            "properties": {
                "record_id": _TEXT,
                "predicted": _MAYBE | {"description": "The label; null for a record without text."},
                "confidence": {"type": ["number", "null"], "description": "The probability of the label, 0 to 1."},
                "reason": _MAYBE | {"description": "Why there is no label."},
                "role": {"enum": ["champion", "canary"]},
                "features": {"enum": ["online", "stale", "absent"]},
                "features_as_of": _MAYBE,
                "version": _TEXT,
                "training_id": _TEXT,
                "ledger_entry": {"type": "integer", "description": "The entry by which the version answers."},
            },
        },
    },
}
TAKEN = {
    "request_id": _TEXT,
    "record_id": _TEXT,
    "reaches": {"type": "array", "items": {"enum": ["evidence", "records"]}},
}


def body(model: Any) -> dict[str, Any]:
    """The description of a body that the server itself parses by a pydantic model, without references to schemas."""
    schema = model.model_json_schema(ref_template="#/components/schemas/{model}")
    definitions = schema.pop("$defs", {})
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": _inlined(schema, definitions)}}}
    }


def _inlined(value: Any, definitions: dict[str, Any]) -> Any:
    if isinstance(value, dict) and "$ref" in value:
        return _inlined(definitions[value["$ref"].rpartition("/")[2]], definitions)
    if isinstance(value, dict):
        return {name: _inlined(item, definitions) for name, item in value.items()}
    return [_inlined(item, definitions) for item in value] if isinstance(value, list) else value


def answered(properties: dict[str, Any]) -> dict[int | str, dict[str, Any]]:
    schema = {"type": "object", "properties": properties}
    return {
        200: {"content": {"application/json": {"schema": schema}}},
        401: {"description": "No key, or an unknown one."},
        413: {"description": "The body is too large."},
        422: {"description": "The request is not as described; `faults` names each field."},
        429: {"description": "The key has sent too many records; see Retry-After."},
        503: {"description": "It cannot be answered now; see Retry-After."},
    }
