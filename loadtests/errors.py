"""Why a load test cannot run."""


class SetupError(Exception):
    """The load test cannot run as it was asked to; the message says why and what to do. Exit code 2."""


class AuditFailed(Exception):
    """The sale was run and its audit is not true. Exit code 1."""
