"""The training program, one process per rank, independent of the task, the launcher and Dagster."""
