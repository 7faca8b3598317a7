"""From a snapshot and settings to processes: plan, requirements, and commands for one rank, several, and machines."""
