"""What is learned: a room per task."""
