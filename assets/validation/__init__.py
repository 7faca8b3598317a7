"""Audits the staged marts with Great Expectations, and publishes only what passed, with one atomic move."""
