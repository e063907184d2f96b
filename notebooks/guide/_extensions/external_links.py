"""List the addresses of other hosts that the pages link to, for a person to check where there is a network."""

from pathlib import Path
from typing import Any

from docutils import nodes
from sphinx.application import Sphinx

FILE = "external_links.txt"


def write_list(app: Sphinx, error: Exception | None) -> None:
    """Write each address with the pages that have it, one address per line."""
    if error is not None:
        return
    pages: dict[str, set[str]] = {}
    for page in sorted(app.env.all_docs):
        for node in app.env.get_doctree(page).findall(nodes.reference):
            if (address := str(node.get("refuri", ""))).startswith(("http:", "https:")):
                pages.setdefault(address, set()).add(page)
    lines = [f"{address}\t{' '.join(sorted(names))}\n" for address, names in sorted(pages.items())]
    (Path(app.outdir) / FILE).write_text("".join(lines))


def setup(app: Sphinx) -> dict[str, Any]:
    """Connect to the end of the build."""
    app.connect("build-finished", write_list)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
