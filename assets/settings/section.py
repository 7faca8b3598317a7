"""What all sections of the settings are."""

from pydantic import BaseModel, ConfigDict

__all__ = ["Section"]


class Section(BaseModel):
    """Fields that are all there, all known, and stay as they are; what a field means is written below it."""

    model_config = ConfigDict(frozen=True, extra="forbid", use_attribute_docstrings=True)
