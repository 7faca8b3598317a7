"""Runs the graph: definitions, jobs, schedules, sensors and the `evergreen` command."""
