"""The runbook names only what there is: commands, settings, metrics."""

import re
import shlex
from pathlib import Path

import pytest
from prometheus_client import REGISTRY

from flashsale import cli, metrics
from flashsale.settings import PREFIX, Settings

RUNBOOK = (Path(__file__).parents[2] / "deploy" / "RUNBOOK.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`(flashsale [a-z][^`]*)`", RUNBOOK)))


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_of_the_runbook_can_be_given(command: str) -> None:
    """The parser takes it as it is printed."""
    assert cli.parser().parse_args(shlex.split(command)[1:]).run


def test_the_runbook_names_commands() -> None:
    assert len(COMMANDS) > 8


def test_every_setting_and_metric_of_the_runbook_exists() -> None:
    settings = {PREFIX + name.upper() for name in Settings.__struct_fields__}
    assert set(re.findall(r"FLASHSALE_[A-Z_]+", RUNBOOK)) <= settings
    assert metrics.verdicts is not None
    counted = {sample.name for metric in REGISTRY.collect() for sample in metric.samples} | {
        f"{metric.name}{'_total' if metric.type == 'counter' else ''}" for metric in REGISTRY.collect()
    }
    assert set(re.findall(r"`(flashsale_[a-z_]+)", RUNBOOK)) <= counted
