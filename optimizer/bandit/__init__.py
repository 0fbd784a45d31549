"""Pure decision mathematics: action space, eligibility, exploration, rewards, evaluation. No clock, store or HTTP."""
