"""Programs for callers of Sendtide: to read, to copy, to start from."""
