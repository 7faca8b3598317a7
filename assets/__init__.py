"""The stages of the graph, one room each; only a stage's `definitions.py` knows Dagster."""
