"""Work on a Ray cluster: its jobs, what they exchange through S3, and rows that workers answer in chunks."""
