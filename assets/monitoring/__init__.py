"""Monitoring: has the world changed, is the champion still as good, and is retraining worth it."""
