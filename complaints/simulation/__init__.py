"""Simulates complaint files in the official layout: a small world, its text, its dirt, and its scenarios."""

from complaints.simulation.simulator import Simulated, simulate

__all__ = ["Simulated", "simulate"]
