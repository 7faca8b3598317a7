"""Removes from a home what nothing needs any more."""
