"""Property tests are seeded; ``pytest tests/bandit --hypothesis-profile=thorough`` looks at many more cases."""

from __future__ import annotations

from hypothesis import settings

settings.register_profile("thorough", max_examples=20_000, derandomize=True, deadline=None)
