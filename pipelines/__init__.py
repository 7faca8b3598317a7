"""How the graph is run: definitions, jobs, schedules, sensors and the `evergreen` command."""
