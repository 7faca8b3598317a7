"""Makes the tickets of a support desk: JSON Lines with versions of a ticket as it is opened, resolved and corrected."""

from simulation.files import Simulated, simulate

__all__ = ["Simulated", "simulate"]
