"""From a snapshot and settings to processes: the plan, what it needs, commands for one rank, several, and machines."""
