"""Reads records from files and S3, each object once, into the raw table, and loses nothing."""
