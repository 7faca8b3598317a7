"""What statistics are kept about: the company complained of, and the consumer's state."""

from feast import Entity, ValueType

__all__ = ["company", "state"]

company = Entity(
    name="company",
    join_keys=["company"],
    value_type=ValueType.STRING,
    description="The company that the record is about; 'unknown' when the record names none.",
)

state = Entity(
    name="state",
    join_keys=["state"],
    value_type=ValueType.STRING,
    description="The consumer's state or territory; 'unknown' when the record names none.",
)
