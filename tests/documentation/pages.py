"""The pages of the documentation: their blocks, headings and links."""

import re
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[2]
NOT_OURS = {"target", "node_modules", "venv", "dist"}
FENCE = re.compile(r"^(?P<indent> *)```(?P<language>[^\n`]*)\n(?P<text>.*?)^ *```[ ]*$", re.M | re.S)


@dataclass(frozen=True)
class Block:
    page: Path
    line: int
    language: str
    text: str
    # What a comment in the line before says, `<!-- so -->`.
    said: str

    def __str__(self):
        return f"{self.page.relative_to(REPOSITORY)}:{self.line}"


def pages() -> list:
    found = (page for page in REPOSITORY.rglob("*.md") if not NOT_OURS & set(page.relative_to(REPOSITORY).parts))
    return sorted(page for page in found if not any(part.startswith(".") for part in page.relative_to(REPOSITORY).parts))


def blocks(page: Path) -> list:
    text, found = page.read_text(), []
    for fence in FENCE.finditer(text):
        indent = fence["indent"]
        inner = "".join(line.removeprefix(indent) for line in fence["text"].splitlines(keepends=True))
        before = text[: fence.start()].rstrip("\n").rsplit("\n", 1)[-1].strip()
        said = re.fullmatch(r"<!-- (.*) -->", before)
        found.append(
            Block(page, text.count("\n", 0, fence.start()) + 1, fence["language"].strip(), inner, said[1] if said else "")
        )
    return found


def prose(page: Path) -> str:
    """The page without its blocks, each of which leaves an empty line."""
    return FENCE.sub("", page.read_text())


def anchors(page: Path) -> set:
    """What headings are linked by, as GitHub makes it."""
    made = {}
    for heading in re.findall(r"^#{1,6} +(.*?) *#*$", prose(page), re.M):
        plain = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading).lower()
        anchor = re.sub(r"[^\w\- ]", "", plain).replace(" ", "-")
        made[anchor] = made.get(anchor, -1) + 1
        if made[anchor]:
            made[f"{anchor}-{made[anchor]}"] = 0
    return set(made)
