"""Simulates the tickets of a support desk: JSON Lines with a ticket's versions, as opened, resolved and corrected."""

from simulation.files import Simulated, simulate

__all__ = ["Simulated", "simulate"]
