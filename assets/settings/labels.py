"""What the model answers with."""

__all__ = ["LABELS"]

LABELS = (
    "bank_account",
    "cards",
    "consumer_loan",
    "credit_reporting",
    "debt_collection",
    "money_transfer",
    "mortgage",
    "other",
    "student_loan",
)
"""The teams a record can be routed to, in the order of the model's outputs."""
