"""The offline simulator and the replays of real data; they run the production code path."""
