"""What a broker refuses, where waiting does not help, with what to do about each."""

from __future__ import annotations

from typing import Final

from aiormq.exceptions import AuthenticationError, ProbableAuthenticationError


class Refused(ConnectionError):
    """The broker closed the connection while it was being made, and said why."""


_OF_TLS: Final = (
    # As OpenSSL words it, the first that fits.
    (
        "certificate is not valid for",
        "Correct the host in the URL, or name the certificate's: MESSAGING_TLS_SERVER_NAME.",
    ),
    (
        "CERTIFICATE_VERIFY_FAILED",
        "Name the file of the CA that signed the broker's certificate: MESSAGING_TLS_CA_FILE.",
    ),
    (
        "_ALERT_",
        "The broker demands a certificate that it trusts: MESSAGING_TLS_CERTIFICATE_FILE, MESSAGING_TLS_KEY_FILE.",
    ),
    ("[SSL:", "Check that this is the broker's port for TLS, usually 5671."),
)


def remedy_for(problem: BaseException) -> str:
    """What to do about a refusal; empty for anything that may pass by itself."""
    if isinstance(problem, Refused | AuthenticationError | ProbableAuthenticationError):
        return "Check user, password and virtual host."
    text = str(problem)
    return next((remedy for words, remedy in _OF_TLS if "[SSL:" in text and words in text), "")


def remedy_for_lost_channel(reason: str) -> str:
    """What to do so that a consumer's channel is not closed again; empty for anything that passes by itself."""
    if "delivery acknowledgement" not in reason:
        return ""
    return (
        " A handler takes longer than the broker waits for it, and what it handles comes again. Give it more time: "
        "Service(queue=QueueOptions(consumer_timeout=...)) with RabbitMQ 3.12 and newer, else consumer_timeout in the "
        "broker's configuration."
    )
