"""``sendtide init`` as a stranger meets it: an empty folder, then every command that it prints, on a real server."""

from __future__ import annotations

import shlex
import shutil
import socket
import subprocess
from pathlib import Path
from typing import Any, get_args

import orjson
import pytest
from click.testing import CliRunner, Result

from optimizer.cli import main
from optimizer.config import Settings
from optimizer.service import setup
from optimizer.service.beginnings import new_source
from optimizer.service.setup import authenticate
from optimizer.service.wiring import Services
from simulations.server import Server
from storage.webhooks import Vendor
from tests.cli.conftest import Sendtide

SECRET = "whsec_" + "A" * 32
NEEDED = pytest.mark.skipif(
    not all(map(shutil.which, ("bash", "curl", "openssl"))), reason="the printed commands need bash, curl and openssl"
)


def free_address() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"127.0.0.1:{probe.getsockname()[1]}"


def commands(text: str) -> dict[str, str]:
    """The printed commands, by what is said of each."""
    parts = text.partition("Go on with these")[2].partition("\nOr go on")[0].split("\n# ")[1:]
    return {part.partition("\n")[0].partition(". ")[2].strip(): part.partition("\n")[2].strip() for part in parts}


def run(command: str, folder: Path) -> Any:
    done = subprocess.run(["bash", "-euc", command], cwd=folder, capture_output=True, check=True, timeout=30)
    return orjson.loads(done.stdout)


@NEEDED
def test_a_stranger_gets_from_nothing_to_a_report_by_what_is_printed(sendtide: Sendtide) -> None:
    address = free_address()
    text = sendtide.ok("init", "--yes", "--bind", address)
    todo = commands(text)
    assert f"http://{address}/console/start" in text
    serve, ask, confirm, event, webhook, report = todo.values()
    assert serve == f"sendtide serve --bind {address} --database {sendtide.database}"
    with Server(Settings(database=sendtide.database, bind=address, workers=1, scheduler=False), sendtide.folder):
        asked = run(ask, sendtide.folder)
        assert (asked["campaign_id"], asked["recipient_id"]) == ("first", "customer-1")
        confirmed = run(confirm, sendtide.folder)
        assert confirmed["status"] == "sent"
        assert run(event, sendtide.folder) == {"accepted": 1, "duplicates": 0, "unmatched": 0, "rejected": []}
        assert run(webhook, sendtide.folder)["accepted"] == 1
        found = run(report, sendtide.folder)
    assert found["decisions"]["total"] == 2
    assert found["by_variant"], "the confirmed message is one of them"


def test_a_report_right_after_it_knows_the_control_groups(sendtide: Sendtide) -> None:
    sendtide.ok("init", "--yes")
    told = " ".join(sendtide.ok("report", "first", env={"COLUMNS": "200"}).split())
    assert "Lift over sending nothing (holdout): nothing to say yet" in told


def test_what_it_made_is_told_to_programs_and_made_once(sendtide: Sendtide) -> None:
    first = sendtide.json("init", "--campaign", "spring", "--variant", "a=One", "--variant", "b", "--channel", "sms")
    assert first["campaign"] == {
        "campaign_id": "spring",
        "is_new": True,
        "body": {
            "variants": [{"id": "a", "text": "One"}, {"id": "b"}],
            "channels": ["sms"],
            "objective": {"opened": 0.1, "clicked": 1.0, "unsubscribed": -20.0},
            "groups": {"holdout": 0.1, "random": 0.05},
        },
    }
    assert first["decision"]["status"] == "reserved", "the made-up person has agreed to text messages"
    assert (sendtide.folder / "first-key").stat().st_mode & 0o777 == 0o600
    assert (sendtide.folder / "webhook-secret").stat().st_mode & 0o777 == 0o600
    again = sendtide.json("init", "--campaign", "spring")
    assert not again["campaign"]["is_new"]
    assert (again["decision"], again["webhook"]) == (first["decision"], first["webhook"])
    assert len(sendtide.json("keys", "list")["keys"]) == 1


def test_each_workspace_has_files_of_its_own_for_its_secrets(sendtide: Sendtide, services: Services) -> None:
    names = ("default", "acme", "Acme", "a/b", "ü" * 256)
    shown = {name: sendtide.json("init", "--workspace", name) for name in names}
    files = {name: Path(told["key_file"]) for name, told in shown.items()}
    assert files["default"] == sendtide.folder / "first-key"
    assert files["acme"] == sendtide.folder / "first-key-acme"
    assert len({file.name.lower() for file in files.values()}) == len(names)
    for name, file in files.items():
        assert authenticate(services, file.read_text().strip()).workspace_id == name
        secret = file.with_name(file.name.replace("first-key", "webhook-secret"))
        with services.store.read() as reader:
            assert [one.secrets for one in reader.webhook_sources(name)] == [(secret.read_text().strip(),)]
        commands = "\n".join(step["command"] for step in shown[name]["next"])
        assert f"cat {shlex.quote(str(file))})" in commands
        assert f"cat {shlex.quote(str(secret))}" in commands


def test_secrets_of_another_database_in_the_folder_are_kept(sendtide: Sendtide) -> None:
    key, hook = sendtide.folder / "first-key", sendtide.folder / "webhook-secret"
    key.write_text("one")
    hook.write_text("two")
    (sendtide.folder / "first-key.1").write_text("older")
    sendtide.ok("init", "--yes")
    assert (sendtide.folder / "first-key.1").read_text() == "older"
    assert (sendtide.folder / "first-key.2").read_text() == "one"
    assert (sendtide.folder / "webhook-secret.1").read_text() == "two"
    assert key.read_text().startswith("st_")


def test_a_source_that_was_made_elsewhere_names_no_file_and_no_step_that_needs_it(
    sendtide: Sendtide, services: Services
) -> None:
    setup.ensure_workspace(services, "default")
    new_source(services, "default", "standard", [SECRET])
    told = sendtide.ok("init", "--yes")
    assert "for standard to call (was there already; its secret is known only to who made it)" in told
    assert "webhook-secret" not in told
    assert "Or let whoever sends tell by a signed webhook" not in commands(told)
    assert sendtide.json("init")["webhook"]["secret_file"] is None
    (sendtide.folder / "webhook-secret").write_text("of another database")
    assert "webhook-secret" not in sendtide.ok("init", "--yes")
    assert "call (was there already" in sendtide.ok("init", "--yes", "--secret", SECRET), "it is the one that is known"


def test_a_secret_of_ones_own_is_in_no_file(sendtide: Sendtide) -> None:
    told = sendtide.ok("init", "--yes", "--secret", SECRET)
    assert "for standard to call\n" in told
    assert "webhook-secret" not in told


def test_another_secret_than_the_sources_is_refused_before_anything_is_made(
    sendtide: Sendtide, services: Services
) -> None:
    setup.ensure_workspace(services, "default")
    made = new_source(services, "default", "standard", [SECRET])
    other = SECRET.replace("A", "B")
    refused = sendtide("init", "--yes", "--secret", other)
    assert refused.exit_code == 1
    told = " ".join(refused.stderr.split())
    assert f"webhook source {made.source_id!r} for standard was made with another secret and stays as it is" in told
    assert f"leave --secret out to go on with it, or PUT /v1/webhook-sources/{made.source_id} with" in told
    assert other not in told
    with services.store.read() as reader:
        assert reader.campaigns("default", limit=1).items == ()


def interactive(sendtide: Sendtide, answers: str) -> Result:
    return CliRunner().invoke(main, ["init", "--database", sendtide.database], input=answers)


def test_questions_are_asked_and_their_answers_taken(sendtide: Sendtide) -> None:
    result = interactive(sendtide, "autumn\nmens=New boots | womens=New coats\nemail, push\norders\nmailgun\n\n")
    assert result.exit_code == 0, result.output
    assert "autumn: mens, womens; by email, push; 10% of people get nothing" in result.stdout
    assert "no webhook: run this again with --vendor mailgun --secret KEY" in result.stdout
    assert '"type":"converted"' in result.stdout
    assert "signed webhook" not in result.stdout
    again = sendtide.ok("init", "--yes", "--campaign", "autumn", "--vendor", "mailgun", "--secret", "k")
    assert "was there already, and stays as it is" in again
    assert "/v1/webhooks/mailgun/hooks-" in again


def test_amazon_ses_is_known_by_its_topic(sendtide: Sendtide, services: Services) -> None:
    later = interactive(sendtide, "\n\n\n\nses\n\n")
    assert "The ARN of the SNS topic that posts (empty: later)" in later.stdout
    assert "no webhook: run this again with --vendor ses --secret TOPIC_ARN once you have the topic" in later.stdout
    topic = "arn:aws:sns:eu-central-1:123456789012:events"
    assert "/v1/webhooks/ses/hooks-" in sendtide.ok("init", "--yes", "--vendor", "ses", "--secret", topic)
    with services.store.read() as reader:
        (source,) = reader.webhook_sources("default")
    assert (source.vendor, source.secrets, source.topic_arns) == ("ses", (), (topic,))


def test_every_vendor_of_the_api_is_offered_and_help_tells_every_default() -> None:
    told = " ".join(CliRunner().invoke(main, ["init", "--help"]).stdout.split())
    assert all(vendor in told for vendor in get_args(Vendor))
    for default in ("first", "hello, tips, each with a text", "email", "clicks", "0.1", "standard"):
        assert f"[default: {default}]" in told


def test_an_id_may_hold_blanks_as_over_the_api(sendtide: Sendtide) -> None:
    result = interactive(sendtide, "the first one\nhello\n\n\n\n")
    assert "without blanks" not in result.stdout
    assert "the first one: hello; by email" in result.stdout


def test_variables_are_split_as_answers_are(sendtide: Sendtide) -> None:
    wishes = {"SENDTIDE_INIT_VARIANTS": "hello=Hello there | tips=Three tips", "SENDTIDE_INIT_CHANNELS": "email, push"}
    told = orjson.loads(sendtide.ok("init", "--json", env=wishes))["campaign"]["body"]
    assert told["variants"] == [{"id": "hello", "text": "Hello there"}, {"id": "tips", "text": "Three tips"}]
    assert told["channels"] == ["email", "push"]


def test_enter_takes_the_defaults_and_no_answers_are_an_error(sendtide: Sendtide) -> None:
    result = interactive(sendtide, "\n" * 5)
    assert result.exit_code == 0, result.output
    assert "first: hello, tips; by email" in result.stdout
    silent = interactive(sendtide, "")
    assert silent.exit_code == 2
    assert "--yes" in silent.stderr


def test_a_wish_that_the_api_would_refuse_is_refused_in_its_words(sendtide: Sendtide) -> None:
    twice = sendtide("init", "--yes", "--variant", "a", "--variant", "a")
    assert twice.exit_code == 1
    assert "variants" in twice.stderr
    path = sendtide("init", "--yes", "--campaign", "a/b")
    assert path.exit_code == 1
    assert "campaign: Must be a string of 1 to 256 characters without control characters or '/'." in path.stderr
    vendor = sendtide("init", "--yes", "--campaign", "x", "--vendor", "sendgrid", "--secret", "no key")
    assert vendor.exit_code == 1
    assert "secrets.0" in vendor.stderr
