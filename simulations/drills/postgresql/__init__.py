"""The service on two hosts that share a PostgreSQL server, which goes down again and again under load."""
