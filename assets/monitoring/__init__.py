"""Monitoring: has the world moved, is the champion still as good, and is retraining worth it."""
