"""The console: what operators run a sale from. Its pages are empty sheets, which the API fills for who may read it."""

import re
from typing import Final

from aiohttp import web

from flashsale.errors import Refused
from flashsale.web.context import Context
from flashsale.web.pages.serving import send
from flashsale.web.pages.site import Site
from flashsale.web.pages.words import Language
from flashsale.web.routing import check_id

SHEET_CACHE: Final = "public, max-age=60"
_BATCH: Final = re.compile("[1-9][0-9]{0,6}")


class Sheet:
    """A page of the console: its template, and what stands in its address."""

    def __init__(self, name: str) -> None:
        self._name = name

    async def __call__(
        self, request: web.Request, _context: Context, site: Site, language: Language
    ) -> web.StreamResponse:
        """The page. Whether there is such a drop or batch it finds out by itself."""
        drop, batch = request.match_info.get("drop"), request.match_info.get("batch")
        if drop is not None:
            check_id(drop)
        if batch is not None and _BATCH.fullmatch(batch) is None:
            raise Refused("not_found", "There is no such batch.")
        values = {"drop": drop, "batch": batch, "here": request.path.partition(f"/{language}")[2]}
        template = f"console/{self._name}.html"
        return send(request, site.kept(template, language, drop or batch, values), site.headers, cache=SHEET_CACHE)


SHEETS: Final[tuple[tuple[str, str, Sheet], ...]] = (
    ("GET", "/ops", Sheet("drops")),
    ("GET", "/ops/new", Sheet("new")),
    ("GET", "/ops/drops/{drop}", Sheet("drop")),
    ("GET", "/ops/drops/{drop}/live", Sheet("live")),
    ("GET", "/ops/drops/{drop}/report", Sheet("report")),
    ("GET", "/ops/drops/{drop}/rehearsals", Sheet("rehearsals")),
    ("GET", "/ops/fcodes", Sheet("batches")),
    ("GET", "/ops/fcodes/{batch}", Sheet("batch")),
    ("GET", "/ops/points", Sheet("points")),
    ("GET", "/ops/orders", Sheet("orders")),
    ("GET", "/ops/audit", Sheet("audit")),
)
"""Each below the language, as the other pages."""
