"""A search end to end: query to code to hits with confidence."""
