"""Signatures of Standard Webhooks: against the standard's own library, in both directions, and against tampering."""

import base64
import json
import time
from datetime import UTC, datetime

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

from flashsale.errors import SetupError
from flashsale.webhooks import (
    TOLERANCE_S,
    Unverified,
    Verified,
    make_secret,
    parse_secret,
    sign,
    signed_headers,
    verify,
)

TEXT = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
SECRET = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
ID = "0198f000-0000-7000-8000-000000000001"
NOW_S = 1_614_265_330
BODY = b'{"test": 2432232314}'

secrets = st.binary(min_size=24, max_size=64)
ids = st.text(st.characters(min_codepoint=33, max_codepoint=126, exclude_characters="."), min_size=1, max_size=64)
bodies = st.binary(max_size=400)
times = st.integers(0, 9_999_999_999)


def refusal(headers: dict[str, str], body: bytes = BODY, *, secret: bytes = SECRET, now_s: float = NOW_S) -> str:
    """Why the message is refused; it fails when the message is not."""
    found = verify(secret, headers, body, now_s=now_s)
    assert isinstance(found, Unverified), found
    return found.reason


def test_signature_is_the_published_one() -> None:
    """The test vector that the standard's libraries share."""
    signed = sign(parse_secret(TEXT), "msg_p5jXN8AQM9LWM0D4loKWxJek", 1_614_265_330, BODY)
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


@given(secret=secrets, message_id=ids, body=st.text(max_size=400))
def test_the_standards_library_verifies_what_we_sign(secret: bytes, message_id: str, body: str) -> None:
    headers = signed_headers(secret, message_id, int(time.time()), body.encode())
    assert Webhook(make_secret(secret)).verify(body, headers, json_parse=False) is None
    with pytest.raises(WebhookVerificationError):
        Webhook(make_secret(secret)).verify(body + " ", headers, json_parse=False)


@given(secret=secrets, message_id=ids, timestamp_s=times, body=st.text(max_size=400))
def test_we_verify_what_the_standards_library_signs(
    secret: bytes, message_id: str, timestamp_s: int, body: str
) -> None:
    signature = Webhook(make_secret(secret)).sign(message_id, datetime.fromtimestamp(timestamp_s, UTC), body)
    headers = {"Webhook-Id": message_id, "Webhook-Timestamp": str(timestamp_s), "Webhook-Signature": signature}
    assert verify(secret, headers, body.encode(), now_s=timestamp_s) == Verified(message_id, timestamp_s)


@given(data=st.data(), secret=secrets, message_id=ids, timestamp_s=times, body=bodies)
def test_anything_altered_is_refused(
    data: st.DataObject, secret: bytes, message_id: str, timestamp_s: int, body: bytes
) -> None:
    """Another secret, id, time or body, down to one byte; also parts of the message that change places."""
    headers = signed_headers(secret, message_id, timestamp_s, body)
    assert verify(secret, headers, body, now_s=timestamp_s) == Verified(message_id, timestamp_s)

    other_id, other_s = data.draw(ids.filter(lambda i: i != message_id)), data.draw(times.filter(timestamp_s.__ne__))
    at = data.draw(st.integers(0, len(body)))
    one = data.draw(st.binary(min_size=1, max_size=1))
    altered = body[:at] + one + body[at + 1 :]
    assume(altered != body)
    other_secret = data.draw(secrets.filter(lambda s: s.ljust(64, b"\0") != secret.ljust(64, b"\0")))  # as HMAC pads
    same_time = {"now_s": timestamp_s}
    refused = [
        verify(other_secret, headers, body, **same_time),
        verify(secret, headers | {"webhook-id": other_id}, body, **same_time),
        verify(secret, headers | {"webhook-timestamp": str(other_s)}, body, now_s=other_s),
        verify(secret, headers | {"webhook-timestamp": f"0{timestamp_s}"}, body, **same_time),
        verify(secret, headers, altered, **same_time),
        verify(secret, headers, body[:at] + one + body[at:], **same_time),
        verify(secret, headers | {"webhook-id": f"{message_id}.{timestamp_s}"}, body, **same_time),
    ]
    assert [found for found in refused if not isinstance(found, Unverified)] == []


@given(data=st.data())
def test_any_other_signature_is_refused(data: st.DataObject) -> None:
    headers = signed_headers(SECRET, ID, NOW_S, BODY)
    at = data.draw(st.integers(0, len(headers["webhook-signature"]) - 1))
    sign_there = data.draw(st.characters(exclude_categories=["Cs"]))
    signature = headers["webhook-signature"]
    assume(signature[at] != sign_there)
    altered = signature[:at] + sign_there + signature[at + 1 :]
    refusal(headers | {"webhook-signature": altered})


def test_one_of_several_signatures_is_enough() -> None:
    """While a secret is being changed the sender signs with both; versions that we do not know are skipped."""
    ours, other = sign(SECRET, ID, NOW_S, BODY), sign(b"x" * 32, ID, NOW_S, BODY)
    headers = signed_headers(SECRET, ID, NOW_S, BODY)
    for several in (f"{other} {ours}", f"{ours} {other}", f"v1a,AAAA v2 {ours}", f"nonsense  {ours} "):
        assert verify(SECRET, headers | {"webhook-signature": several}, BODY, now_s=NOW_S) == Verified(ID, NOW_S)
    assert "secret" in refusal(headers | {"webhook-signature": f"{other} {other}"})
    for strange in ("v1a" + ours[2:], ours[3:], "V1" + ours[2:], "v1 " + ours[3:]):
        assert "version v1" in refusal(headers | {"webhook-signature": strange})


@pytest.mark.parametrize("signature", ["v1,", "v1,é", "v1,\udce9", "v1,=", "v1,\0", "v1,g0hM9SsE"])
def test_strange_signatures_are_refused_without_a_fault(signature: str) -> None:
    refusal(signed_headers(SECRET, ID, NOW_S, BODY) | {"webhook-signature": signature})


def test_old_and_future_messages_are_refused() -> None:
    """The tolerance holds to both sides, to the second; so does another one."""
    headers = signed_headers(SECRET, ID, NOW_S, BODY)
    for late_s in (-TOLERANCE_S, 0, TOLERANCE_S):
        assert isinstance(verify(SECRET, headers, BODY, now_s=NOW_S + late_s), Verified)
    assert "301 s in the past" in refusal(headers, now_s=NOW_S + TOLERANCE_S + 1)
    assert "301 s in the future" in refusal(headers, now_s=NOW_S - TOLERANCE_S - 1)
    assert isinstance(verify(SECRET, headers, BODY, now_s=NOW_S + 9, tolerance_s=8), Unverified)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_a_missing_header_is_named(name: str) -> None:
    headers = signed_headers(SECRET, ID, NOW_S, BODY)
    assert refusal({k: v for k, v in headers.items() if k != name}) == f"it has no {name}"
    assert refusal(headers | {name: ""}) == f"it has no {name}"


@pytest.mark.parametrize(
    "timestamp", ["x", "-1", "1.5", "1e9", "\u0661", "²", "9" * 5000, "1614265330 ", "+1614265330"]
)
def test_timestamps_that_are_none_are_refused(timestamp: str) -> None:
    assert "Unix time" in refusal(signed_headers(SECRET, ID, NOW_S, BODY) | {"webhook-timestamp": timestamp})


@pytest.mark.parametrize("message_id", ["", "a.b", "a b", "a\r\nx: y", "é", "\x7f"])
def test_an_id_that_could_be_misread_is_not_signed(message_id: str) -> None:
    """A full stop would let id and timestamp change places; a line break would add headers."""
    with pytest.raises(ValueError, match="no id of a message"):
        sign(SECRET, message_id, NOW_S, BODY)


def test_headers_are_those_of_the_standard() -> None:
    headers = signed_headers(SECRET, ID, NOW_S, BODY)
    assert headers == {
        "webhook-id": ID,
        "webhook-timestamp": str(NOW_S),
        "webhook-signature": sign(SECRET, ID, NOW_S, BODY),
        "content-type": "application/json",
        "user-agent": "flashsale",
    }
    assert json.loads(BODY) == Webhook(TEXT).verify(BODY, signed_headers(SECRET, ID, int(time.time()), BODY))


@given(entropy=secrets)
def test_a_made_secret_is_read_back(entropy: bytes) -> None:
    """With its padding or, as some write it, without."""
    made = make_secret(entropy)
    assert parse_secret(made) == parse_secret(made.rstrip("=")) == parse_secret(f" {made}\n") == entropy


@pytest.mark.parametrize("size", [0, 23, 65])
def test_a_secret_has_24_to_64_bytes(size: int) -> None:
    with pytest.raises(ValueError, match="24 to 64 bytes"):
        make_secret(b"x" * size)
    with pytest.raises(SetupError):
        parse_secret("whsec_" + base64.b64encode(b"x" * size).decode())


@pytest.mark.parametrize(
    "text",
    [
        "",
        "whsec_",
        TEXT.removeprefix("whsec_"),
        "whsk_" + TEXT.removeprefix("whsec_"),
        TEXT[:-1] + "-",
        TEXT + "!",
        TEXT[:20] + " " + TEXT[20:],
        TEXT[:-2] + "é",
        TEXT + "=",
        TEXT + "====",
        "whsec_" + "A" * 33,
    ],
)
def test_what_is_no_secret_is_refused_with_the_way_to_one(text: str) -> None:
    """The sentence names the setting and how to make a secret, and never repeats what was given."""
    with pytest.raises(SetupError) as refused:
        parse_secret(text)
    assert "FLASHSALE_FULFILMENT_SECRET" in refused.value.detail
    assert "openssl rand -base64 32" in refused.value.detail
    assert len(text) < 20 or text.removeprefix("whsec_") not in refused.value.detail
