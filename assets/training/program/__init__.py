"""The training program, one process a rank: it is blind to the task, to how it was launched and to Dagster."""
