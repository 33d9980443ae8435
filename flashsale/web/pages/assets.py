"""Stylesheets, modules and images, under paths that change whenever any of them does.

All share one version, a hash of everything: modules import each other by relative paths, and so always get those that
they were written with. A browser keeps them for a year.
"""

import hashlib
import re
from importlib.resources import files
from typing import Final

from aiohttp import web

from flashsale.web.pages.serving import Body, body_of, send

PREFIX: Final = "/assets/"
TYPES: Final = {
    "css": "text/css; charset=utf-8",
    "js": "text/javascript; charset=utf-8",
    "svg": "image/svg+xml",
    "png": "image/png",
    "txt": "text/plain; charset=utf-8",
}
FOR_EVER: Final = "public, max-age=31536000, immutable"
_IMPORT: Final = re.compile(r"""^(?:import|export)\s[^"']*["']\./([a-z0-9_-]+\.js)["'];$""", re.MULTILINE)


class Assets:
    """The files of `static/`, read once; those of others, in `static/vendor`, stand beside our own in the addresses."""

    def __init__(self) -> None:
        own = files(__package__) / "static"
        every = (f for folder in (own, own / "vendor") for f in folder.iterdir() if f.is_file())
        found = {f.name: f.read_bytes() for f in every}
        digest = hashlib.blake2b(digest_size=6)
        for name in sorted(found):
            digest.update(b"%s\0%d\0%s" % (name.encode(), len(found[name]), found[name]))
        self.version = digest.hexdigest()
        self.files: dict[str, Body] = {
            name: body_of(content, TYPES[name.rpartition(".")[2]]) for name, content in found.items()
        }

    def path(self, name: str) -> str:
        """Where a file is; `KeyError` when there is none."""
        if name not in self.files:
            raise KeyError(name)
        return f"{PREFIX}{self.version}/{name}"

    def modules(self, entry: str) -> list[str]:
        """The module and all that it imports, each once: what a browser may fetch side by side."""
        wanted, known = [entry], [entry]
        while wanted:
            for name in _IMPORT.findall(self.files[wanted.pop()].content.decode()):
                if name not in known:
                    known.append(name)
                    wanted.append(name)
        return known

    def answer(self, request: web.Request, headers: dict[str, str]) -> web.Response:
        """`GET /assets/{version}/{name}`. For another version, there is what we have."""
        body = self.files.get(request.match_info["name"])
        if body is None:
            raise web.HTTPNotFound
        cache = FOR_EVER if request.match_info["version"] == self.version else "no-cache"
        return send(request, body, headers, cache=cache)
