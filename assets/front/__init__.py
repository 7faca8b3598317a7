"""The front door: where a home stands, how it got there, and what came of its last night, as pages and as JSON."""
