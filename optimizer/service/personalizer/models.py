"""A loop's model as a file: exported, imported, reset, and what is known of it.

The file is ``optimizer.model.artifact``'s: JSON and arrays under a checksum, never pickle. A signed one carries a MAC
under the installation's salt in front. An import takes both; a signature that is there must be right.
"""

from __future__ import annotations

import hmac
from datetime import datetime
from hashlib import sha256

from optimizer.errors import BadArtifact, Invalid, NotFound
from optimizer.model.adf import AdfModel
from optimizer.service.personalizer import learning
from optimizer.service.personalizer import loop as loops
from optimizer.service.wiring import Services

_SIGNED = b"SNDTSIG\x01"
_MAC = 32


def export(services: Services, workspace_id: str, *, signed: bool) -> bytes:
    """The model's file.

    Raises:
        NotFound: there is none: nothing was learned yet, or not since a reset.
    """
    with services.store.read() as reader:
        stored = reader.rank_model(workspace_id)
    if stored is None or not stored.blob:
        raise NotFound("the loop has no model yet", code="ResourceNotFound")
    return _SIGNED + _mac(services, stored.blob) + stored.blob if signed else stored.blob


def take_in(services: Services, workspace_id: str, raw: bytes) -> None:
    """Replaces the model by one of a file.

    Raises:
        Invalid: it is no model file, was damaged, or its signature is not this installation's.
    """
    blob, signed = raw, raw.startswith(_SIGNED)
    if signed:
        start = len(_SIGNED) + _MAC
        blob = raw[start:]
        if not hmac.compare_digest(raw[len(_SIGNED) : start], _mac(services, blob)):
            raise Invalid("the file's signature is not this installation's", code="InvalidModelImportSignature")
    try:
        model = AdfModel.from_blob(blob, linear=not signed)
    except BadArtifact as fault:
        raise Invalid(f"not a model file: {fault.detail}", code="InvalidModelImportFormat") from None
    loop = loops.get(services, workspace_id)
    if model.products != loop.settings.products:
        told = "multiplies features" if model.products else "doesn't multiply features"
        raise Invalid(f"the model {told}, the loop's learning settings say otherwise", code="InvalidModelMetadata")
    # It goes on under this loop's rules, and this loop's log is not what it learned from.
    model.facts = {"teaching": learning.told(loop), "whole": False}
    learning.publish(services, workspace_id, model.to_blob(), new=True)


def properties(services: Services, workspace_id: str) -> tuple[datetime, datetime] | None:
    """When the model was first made, and when it last changed; None = there is none yet."""
    with services.store.read() as reader:
        stored = reader.rank_model(workspace_id)
    return None if stored is None else (stored.born_at, stored.made_at)


def _mac(services: Services, blob: bytes) -> bytes:
    return hmac.new(services.salt, b"personalizer model" + blob, sha256).digest()
