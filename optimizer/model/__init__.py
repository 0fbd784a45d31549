"""The reward model: features, artifacts, inference. Training is in ``model.training``, the only home of torch."""
