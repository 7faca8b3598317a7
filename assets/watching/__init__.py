"""What is told to the outside: figures of a home for a time series database, and alerts for people."""
