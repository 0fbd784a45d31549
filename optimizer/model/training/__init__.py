"""Training of the reward model; the only package that imports torch."""
