"""Keeps model versions in MLflow, and every verdict about them in a ledger."""
