"""The Python of the complaint domain: its simulator."""

from assets.settings import load_domain

__all__ = ["QUEUES"]

QUEUES = tuple(load_domain().labels)
"""The teams a complaint can be routed to."""
