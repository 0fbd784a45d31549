"""``sendtide drill webhooks``: a vendor's webhooks against a real server, doubled and forged ones among them."""
