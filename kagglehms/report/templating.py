"""Fill templates: self-contained pages in which everything from data is escaped and nothing is fetched.

The page's Content-Security-Policy forbids every connection; pictures are data, and a script runs only if its hash is
the one that the policy names. So even a page that was tampered with could not send anything.
"""

from __future__ import annotations

import base64
import hashlib
from datetime import datetime
from functools import cache
from typing import TYPE_CHECKING, Any

from kagglehms import __version__
from kagglehms.console import visible
from kagglehms.report.style import COLOURS, DARK, LIGHT

if TYPE_CHECKING:
    from jinja2 import Environment


def render(template: str, **context: Any) -> str:
    """Fill a template of `report/templates` and date it. Strings are escaped unless they are `markupsafe.Markup`."""
    now = datetime.now()
    day = f"{now.day} {now:%B %Y}"
    dates = {"day": day, "written": f"{day}, {now:%H:%M}"}
    return environment().get_template(template).render(version=__version__, **dates, **context)


def policy(script: str | None = None) -> str:
    """Return the Content-Security-Policy of a page: no network at all, and at most this one script."""
    rules = [
        "default-src 'none'",
        "img-src data:",
        "style-src 'unsafe-inline'",
        "base-uri 'none'",
        "form-action 'none'",
    ]
    if script is not None:
        digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
        rules.append(f"script-src 'sha256-{digest}'")
    return "; ".join(rules)


def source(name: str) -> str:
    """Return the text of a file of `report/templates` as it is."""
    from importlib.resources import files

    return files("kagglehms.report").joinpath("templates", name).read_text(encoding="utf-8")


@cache
def environment() -> Environment:
    """Return the environment of this room's templates, in which a misspelt variable is an error."""
    from jinja2 import Environment, PackageLoader, StrictUndefined

    made = Environment(
        loader=PackageLoader("kagglehms.report"),
        autoescape=True,
        finalize=_visible,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters["score"] = _score
    made.globals.update(light={**vars(LIGHT), **COLOURS}, dark=vars(DARK))
    return made


def _visible(value: object) -> object:
    """Show what no reader sees, and what would turn the words of a page around, as escapes."""
    return visible(value) if type(value) is str else value


def _score(value: float | None) -> str:
    return "–" if value is None else f"{value:.4f}"
