"""How graphs are written, and how closely a runtime has to follow what they were made from."""

from __future__ import annotations

from typing import Final

OPSET: Final = 17
#: ONNX IR version of opset 17's time; every ONNX Runtime since 1.13 reads it.
IR_VERSION: Final = 8
#: Of float32 sums in another order, per unit of a column's own size (columns are standardised; some are larger).
TOLERANCE: Final = 1e-5
