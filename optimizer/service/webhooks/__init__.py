"""Vendors' webhooks: what each signs, what it says, and what of it a machine did. Nothing here knows Flask.

One module a vendor: ``read`` checks a delivery's signature and turns its body into events, ``signs`` tells from a
vendor's words what may betray a machine, ``UNDERSTOOD`` is the table of what its events mean.
"""
