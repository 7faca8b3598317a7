"""The stages of the graph, one folder each; only a stage's `definitions.py` imports Dagster."""
