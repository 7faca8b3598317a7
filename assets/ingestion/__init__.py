"""Reads records from files and S3, each object once, into the raw table; nothing is lost on the way."""
