"""Rivals on the same stream and features: an optional extra (``sendtide[rivals]``), never part of a service."""
