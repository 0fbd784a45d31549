"""The Personalizer loop: a contextual bandit over actions that come with each request, as Azure Personalizer had it."""
