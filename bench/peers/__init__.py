"""What bench/training.py measures ours against, and the rows that all of them read."""
