"""What the service does, apart from HTTP: decide, ingest, retrain, serve policies, report."""
