"""The sizes that the API takes. Every one is in the OpenAPI document through the field that uses it."""

from __future__ import annotations

#: Characters of an id or a name.
ID = 256
#: Characters that say where a refusal was recorded: ``event:``, an event's type and its id, where an event did.
SOURCE = len("event::") + 2 * ID
#: UTF-8 bytes of a string in a context, and characters of a variant's text.
TEXT = 8192
#: Values in one context, attributes, metadata or properties object.
ATTRIBUTES = 200
#: Levels of objects and lists in one of those.
DEPTH = 5
#: Variants of a campaign that aren't archived (with those that are: ``service.setup.VARIANTS_EVER``).
VARIANTS = 500
CHANNELS = 50
#: Entries of a selector, of a caller's own suppressions.
ENTRIES = 200
#: Suppressions with those that events recorded: more than a body of 1 MiB holds.
SUPPRESSIONS = 10_000
#: Items of a list that is stored already: it is as long as it is.
STORED = 1_000_000
OUTCOMES = 50
#: Rows of a batch or an envelope of events.
ROWS = 10_000
#: Money, weights and values, either sign.
AMOUNT = 1e9
#: A year and a day in hours: the longest window of a request, a cap or a condition.
YEAR_HOURS = 8784
#: The longest attribution window: 90 days.
ATTRIBUTION_HOURS = 2160
PAGE = 50
#: Characters of a cursor: base64 of an id, whose characters take up to four bytes each, and of what says which list.
CURSOR = 2048
PAGE_MAX = 500
#: The largest change position (a 63-bit integer).
POSITION = 2**63 - 1
#: Messages that a cap allows one recipient, and that a capacity allows all of them.
RULE_MESSAGES = 1_000_000
CAPACITY = 1_000_000_000
#: The shortest gap: one is shown to the millionth of a minute.
GAP_MINUTES = 0.001
#: The longest period of a capacity: 31 days.
MONTH_MINUTES = 44_640
WARM_UP_STEPS = 200
WARM_UP_DAYS = 3650
#: Dates of a blackout.
DATES = 1000
#: Conditions of a variant on earlier messages.
REQUIREMENTS = 20
#: Bytes of one message and of one batch of the Segment tracking API, and messages of a batch: Segment's own limits
#: (https://segment.com/docs/connections/sources/catalog/libraries/server/http-api/#max-request-size).
SEGMENT_MESSAGE = 32 * 1024
SEGMENT_BATCH = 500 * 1024
SEGMENT_ROWS = 2500
