"""What is logged: one line a win, refusals counted."""

import json

import pytest
from prometheus_client import REGISTRY
from structlog.testing import capture_logs

from flashsale import log
from flashsale.domain import Grant, Refusal, Verdict


def test_wins_have_a_line_each_and_refusals_one_a_second(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    grants = [Grant(f"id-{m}", m, "a", 1, 1, None, "|1", 5) for m in (1, 2)]
    with capture_logs() as told:
        tally = log.Tally("json")
        tally.decided("d", [*grants, Refusal(Verdict.SOLD_OUT), Refusal(Verdict.SOLD_OUT), Refusal(Verdict.PAUSED)])
        tally.decided("d", [Refusal(Verdict.SOLD_OUT)])
        tally.committed("d", grants)
        tally.flush()
        tally.flush()
    wins = [json.loads(line) for line in capsysbinary.readouterr().err.splitlines()]
    assert [(w["event"], w["reservation"], w["member"]) for w in wins] == [
        ("reservation.held", "id-1", 1),
        ("reservation.held", "id-2", 2),
    ]
    assert told == [{"event": "reservation.refused", "log_level": "info", "drop": "d", "sold_out": 3, "paused": 1}]
    assert REGISTRY.get_sample_value("flashsale_verdicts_total", {"drop": "d", "verdict": "sold_out"}) == 3
