"""Point-in-time features through Feast: definitions, training snapshots and the online store."""
