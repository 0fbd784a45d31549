"""The vendors, and what of a source's set-up each takes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from optimizer.errors import Invalid
from optimizer.service.webhooks import mailgun, postmark, sendgrid, ses, sns, standard, twilio
from optimizer.service.webhooks.delivery import Read, SignsOf, Understood
from storage.webhooks import Vendor


@dataclass(frozen=True, slots=True)
class VendorModule:
    """One vendor: reads deliveries, tells signs of machines, knows meanings."""

    read: Read
    signs: SignsOf
    understood: Understood


VENDORS: Mapping[Vendor, VendorModule] = {
    "sendgrid": VendorModule(sendgrid.read, sendgrid.signs, sendgrid.UNDERSTOOD),
    "mailgun": VendorModule(mailgun.read, mailgun.signs, mailgun.UNDERSTOOD),
    "postmark": VendorModule(postmark.read, postmark.signs, postmark.UNDERSTOOD),
    "ses": VendorModule(ses.read, ses.signs, ses.UNDERSTOOD),
    "twilio": VendorModule(twilio.read, twilio.signs, twilio.UNDERSTOOD),
    "standard": VendorModule(standard.read, standard.signs, standard.UNDERSTOOD),
}


def require_setup(vendor: Vendor, secrets: tuple[str, ...], topic_arns: tuple[str, ...]) -> None:
    """``Invalid``, naming each field that this vendor can't be checked with. A secret is never repeated."""
    errors: dict[str, list[str]] = {}
    if vendor == "ses":
        if secrets:
            errors["secrets"] = ["Must be empty: SNS signs with certificates."]
        if not topic_arns:
            errors["topic_arns"] = ["Missing; at least one SNS topic is required."]
        for index, arn in enumerate(topic_arns):
            if sns.TOPIC.fullmatch(arn) is None:
                errors[f"topic_arns.{index}"] = [f"Must be arn:aws:sns:REGION:ACCOUNT:TOPIC. Got {arn[:80]!r}."]
    else:
        if topic_arns:
            errors["topic_arns"] = ["Must be empty: only ses has topics."]
        if not secrets:
            errors["secrets"] = ["Missing; at least one is required."]
        for index, secret in enumerate(secrets):
            wrong = _wrong(vendor, secret)
            if wrong:
                errors[f"secrets.{index}"] = [wrong]
    if errors:
        first = next(iter(errors.items()))
        raise Invalid(f"{first[0]}: {first[1][0]}", errors=errors)


def _wrong(vendor: Vendor, secret: str) -> str:
    """What is wrong with a secret, empty if nothing is."""
    try:
        if vendor == "sendgrid":
            sendgrid.public_key(secret)
        if vendor == "standard":
            standard.require_secret(secret)
    except Invalid as error:
        return f"{error.detail[0].upper()}{error.detail[1:]}."
    user, colon, password = secret.partition(":")
    if vendor == "postmark" and not (user and colon and password):
        return "Must be USER:PASSWORD, as in the webhook's Basic auth."
    if vendor in ("mailgun", "twilio") and secret.strip() != secret:
        return "Must not begin or end with blanks."
    return ""
