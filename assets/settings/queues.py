"""What the model answers with."""

__all__ = ["QUEUES"]

QUEUES = (
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
"""The teams a complaint can be routed to, in the order of the model's outputs."""
