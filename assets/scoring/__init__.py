"""Scoring: the champion's queue for every new complaint, and for the rows of a file."""
