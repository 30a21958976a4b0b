"""What MkDocs is told besides mkdocs.yml."""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

_REPOSITORY = "https://github.com/tensor-wasm/tensor-wasm"
_LINK = re.compile(r"(\]\()(\.\./[^)#\s]+)((?:#[^)\s]*)?\))")


def on_page_markdown(markdown: str, page: Any, config: Any, **_: Any) -> str:
    """Lead relative links that leave ``docs/`` to the repository: there they work as they stand, the site ends here."""
    folder = posixpath.dirname(page.file.src_uri)
    root = Path(config["docs_dir"]).parent

    def led(match: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join("docs", folder, match[2]))
        if target.startswith("docs/"):
            return match[0]
        kind = "tree" if (root / target).is_dir() else "blob"
        return f"{match[1]}{_REPOSITORY}/{kind}/main/{target}{match[3]}"

    return _LINK.sub(led, markdown)
