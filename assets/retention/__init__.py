"""What of a home nothing needs any more, and how it goes."""
