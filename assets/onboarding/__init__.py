"""Getting started with one's own records: a domain drafted from a file, and a check of what it reads."""
