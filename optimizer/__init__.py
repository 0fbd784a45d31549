"""The service: deciding, learning, reporting. See CONTRIBUTING.md for how its parts fit together."""
