"""The store: records, the port that every backend keeps, and the backends."""
