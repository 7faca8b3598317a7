"""What a newcomer with records of their own begins with: a domain drafted from a file, and a look at what it reads."""
