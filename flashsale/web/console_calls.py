"""All calls of the operators' console, beside those that operators have without it."""

from typing import Final

from flashsale.web import (
    console_audit,
    console_drops,
    console_fcodes,
    console_points,
    console_rehearsals,
    console_report,
    console_stream,
)

CALLS: Final = (
    *console_audit.CALLS,
    *console_points.CALLS,
    *console_drops.CALLS,
    *console_fcodes.CALLS,
    *console_report.CALLS,
    *console_rehearsals.CALLS,
    *console_stream.CALLS,
)
