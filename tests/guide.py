"""Read the pages for users, README and guide, and the commands and Python in them."""

import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parent.parent
GUIDE = ROOT / "notebooks" / "guide"
PAGES = {str(path.relative_to(ROOT)): path.read_text() for path in [ROOT / "README.md", *sorted(GUIDE.rglob("*.md"))]}
TEXT = "\n".join(PAGES.values())
# `sh` runs in a test. `bash` is for what needs a cluster, a server, an hour or a file of the reader.
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```", re.DOTALL | re.MULTILINE)


class Block(NamedTuple):
    """A block of code and its page."""

    page: str
    kind: str
    body: str


BLOCKS = [Block(page, *match) for page, text in PAGES.items() for match in BLOCK.findall(text)]
SCRIPTS = list(dict.fromkeys(block.body for block in BLOCKS if block.kind == "python"))


def split_commands(body: str) -> list[str]:
    """Return the commands of a block without comments."""
    lines = body.replace("\\\n", "").splitlines()
    return [line for line in (re.sub(r"(^|\s+)# .*", "", line).strip() for line in lines) if line]


def commands(*kinds: str) -> list[str]:
    """List the commands in blocks of these kinds, each once."""
    return list(dict.fromkeys(line for block in BLOCKS if block.kind in kinds for line in split_commands(block.body)))


def runnable() -> list[str]:
    """List commands and scripts in the order of the pages, each once; those that install or build have other tests."""
    items: list[str] = []
    for block in BLOCKS:
        if block.kind == "sh":
            items += [line for line in split_commands(block.body) if not line.startswith(("make ", "pip "))]
        elif block.kind == "python" and not block.body.startswith("# "):
            items.append(block.body)
    return list(dict.fromkeys(items))
