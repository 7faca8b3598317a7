"""Scoring: the champion's label for every new record, and for the rows of a file."""
