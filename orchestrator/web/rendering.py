"""Pages from templates. Everything a template is given is escaped, unless it is markup of our own."""

from __future__ import annotations

import secrets
from datetime import UTC, datetime
from http import HTTPStatus
from pathlib import Path
from typing import Any, Final
from urllib.parse import parse_qsl, urlencode

from fastapi import Request
from fastapi.responses import HTMLResponse, RedirectResponse
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup

from orchestrator import words
from orchestrator.instance import SagaStatus
from orchestrator.web.access import Role, Who, access_of, reading
from orchestrator.web.gantt import PATTERNS
from orchestrator.web.problems import Problem, path_of
from orchestrator.web.web import web_of
from orchestrator.web.words import Action

_MOST_FIELDS: Final = 50
_SIGNS: Final = {
    "running": "▶",
    "compensating": "↩",
    "blocked": "■",
    "completed": "✓",
    "compensated": "↩",
    "compensated_with_exceptions": "↩",
    "abandoned": "✗",
}

templates = Environment(
    loader=FileSystemLoader(Path(__file__).parent / "templates"),
    autoescape=True,
    undefined=StrictUndefined,
    trim_blocks=True,
    lstrip_blocks=True,
)


def _status(status: str) -> Markup:
    word = SagaStatus(status).value
    return Markup('<span class="status {}"><span aria-hidden="true">{}</span> {}</span>').format(
        word, _SIGNS[word], word.replace("_", " ")
    )


def _ago(at: datetime | None) -> Markup:
    if at is None:
        return Markup("")
    told = words.duration(datetime.now(UTC) - at)
    shown = Markup('<time datetime="{}" title="{}">{}</time>')
    return shown.format(at.isoformat(), words.instant(at), f"{told} ago")


def _clock(at: datetime | None) -> Markup:
    if at is None:
        return Markup("")
    utc = at.astimezone(UTC)
    return Markup('<time datetime="{}" title="{}">{}</time>').format(
        at.isoformat(), words.instant(at), f"{utc:%H:%M:%S}.{utc.microsecond // 1000:03d}"
    )


def _sentence(text: str) -> str:
    """The text of an error, as it stands by itself."""
    return text[:1].upper() + text[1:] + ("" if text.endswith((".", "?", "!")) else ".")


templates.filters |= {
    "status": _status,
    "ago": _ago,
    "clock": _clock,
    "duration": words.duration,
    "sentence": _sentence,
}


def base_of(request: Request) -> str:
    """What stands before every path of ours: where the application is mounted."""
    root: str = request.scope.get("root_path", "")
    return root.rstrip("/")


def render(request: Request, who: Who | None, template: str, *, status: int = 200, **more: Any) -> HTMLResponse:
    """Make a page."""
    web = web_of(request)
    context = {
        "base": base_of(request),
        "path": path_of(request),
        "who": who,
        "may_act": who is not None and who.role is Role.OPERATOR,
        "csrf": access_of(request).csrf_token(who) if who else "",
        "fresh_key": secrets.token_urlsafe,
        "by_token": web.access.by_token,
        "has_letters": web.letters is not None,
        "statuses": list(SagaStatus),
        "actions": list(Action),
        "patterns": PATTERNS,
    }
    return HTMLResponse(templates.get_template(template).render(context | more), status)


def link(request: Request, path: str, **query: object) -> str:
    """A path of ours, with what is not empty as its query."""
    asked = urlencode({name: value for name, value in query.items() if value not in (None, "")}, doseq=True)
    return f"{base_of(request)}{path}" + (f"?{asked}" if asked else "")


def seen_at(request: Request, path: str, **query: object) -> RedirectResponse:
    """Where to look after something was done."""
    return RedirectResponse(link(request, path, **query), 303)


async def form_of(request: Request) -> dict[str, str]:
    """The fields of a form, as sent by a page.

    Raises:
        Problem: they are no form.
    """
    try:
        text = (await request.body()).decode()
        fields = parse_qsl(text, keep_blank_values=True, max_num_fields=_MOST_FIELDS, errors="strict")
    except ValueError:
        raise Problem(HTTPStatus.BAD_REQUEST, "no-form", "that is no form of ours; load the page again") from None
    return dict(fields)


async def written_form(request: Request) -> tuple[Who, dict[str, str]]:
    """A form that asks for something to be done, and by whom: an operator who means it.

    Raises:
        Problem: they may not, or it is not certain that they mean to.
    """
    who, form = reading(request), await form_of(request)
    access_of(request).may_write(who, form.get("csrf", ""))
    return who, form
