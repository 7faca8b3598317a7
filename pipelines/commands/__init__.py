"""The subcommands of `evergreen`, a thin layer over the graph and the stages' functions."""
