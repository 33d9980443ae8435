"""The HTTP side: the only room that speaks aiohttp's server."""
