"""A made-up population whose answers are known exactly: what every scenario of ``sendtide simulate`` plays in."""
