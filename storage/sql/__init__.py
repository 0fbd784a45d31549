"""The queries and changes that all backends share: plain SQL over a few tables of the same names and columns."""
