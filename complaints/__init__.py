"""What the complaint domain has in Python: its simulator."""

from assets.settings import load_domain

__all__ = ["QUEUES"]

QUEUES = tuple(load_domain().labels)
"""The teams a complaint can be routed to."""
