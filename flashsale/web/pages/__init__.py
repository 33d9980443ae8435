"""The pages: what shoppers see and operators work with.

A page holds nothing personal: its bytes are the same for everybody, so a CDN may keep it, and what is personal comes by
small calls of the API (`flashsale/web/mine.py`). `site` puts the parts together: templates (Jinja2), words (Babel;
English is the source), assets (one version for all of them, in their paths). `serving` sends bytes with tag and
compression, `headers` says what browsers may do, `routes` lists every address. The modules in `static/` need no build.
"""
