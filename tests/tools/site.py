"""mkdocs' hook for this tree (conf/mkdocs.yml): README is the site's first page, and files that pages link to outside
of docs/ come along. The pages themselves stay as GitHub shows them.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[2]
OUTSIDE = re.compile(r"\]\(\.\./([^)#]+)\)")
BESIDE = "files"  # where they are in the site


def on_files(files: Files, *, config: Any) -> Files:
    """Add the first page, and what is linked to from elsewhere in the tree."""
    readme = (ROOT / "README.md").read_text(encoding="utf-8")
    readme = readme.replace("](docs/adr)", "](adr/README.md)").replace("](docs/", "](").replace('src="docs/', 'src="')
    files.append(File.generated(config, "index.md", content=readme))
    for page in (ROOT / "docs").glob("*.md"):
        for name in OUTSIDE.findall(page.read_text(encoding="utf-8")):
            uri = f"{BESIDE}/{name}"
            if files.get_file_from_path(uri) is None:
                files.append(File.generated(config, uri, abs_src_path=str(ROOT / name)))
    return files


def on_page_markdown(markdown: str, **_: Any) -> str:
    """Lead links out of docs/ to the copies."""
    return OUTSIDE.sub(rf"]({BESIDE}/\1)", markdown)
