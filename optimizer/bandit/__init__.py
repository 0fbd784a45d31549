"""Pure decision mathematics: action space, eligibility, exploration, rewards, evaluation. No clock, no store, no HTTP."""
