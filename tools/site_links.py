"""A hook of `mkdocs build`: links from docs/ to files elsewhere in the source lead nowhere on the site, so that there
the file's path stands instead. A file that is not there is an error, as other wrong links are."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
log = logging.getLogger("mkdocs.hooks.site_links")


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Called by mkdocs with each page."""

    def path(link: re.Match[str]) -> str:
        if not (ROOT / link[2]).exists():
            log.warning("Doc file '%s' links to '%s', which is not in the source.", page.file.src_uri, link[2])
        return f"`{link[2]}`" if link[2].endswith(link[1]) else f"{link[1]} (`{link[2]}`)"

    return re.sub(r"\[([^\]]+)\]\(\.\./([^)#]+)[^)]*\)", path, markdown)
