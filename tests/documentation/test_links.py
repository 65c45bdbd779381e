"""Every link between pages leads somewhere."""

import re

import pytest

import pages

LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: str(page.relative_to(pages.REPOSITORY)))
def test_every_link_leads_to_a_file_and_a_heading_that_are_there(page):
    wrong = []
    for target in LINK.findall(re.sub(r"`[^`\n]*`", "", pages.prose(page))):
        if re.match(r"[a-z]+:", target):
            continue
        path, _, anchor = target.partition("#")
        file = (page.parent / path).resolve() if path else page
        if not file.exists():
            wrong.append(f"{target}: no such file")
        elif anchor and file.suffix == ".md" and anchor not in pages.anchors(file):
            wrong.append(f"{target}: no such heading; there are {sorted(pages.anchors(file))}")
    assert not wrong, "\n".join(wrong)


def test_every_page_is_in_the_index_of_its_folder_and_every_index_in_the_one_above():
    docs = pages.REPOSITORY / "docs"
    lacking = []
    for page in pages.pages():
        if not page.is_relative_to(docs) or page == docs / "README.md":
            continue
        index = (page.parent.parent if page.name == "README.md" else page.parent) / "README.md"
        if f"({page.relative_to(index.parent)})" not in index.read_text():
            lacking.append(f"{index} does not link {page}")
    assert not lacking, "\n".join(lacking)


def test_a_wrong_link_and_a_wrong_heading_would_be_found():
    index = (pages.REPOSITORY / "docs/README.md").read_text()
    assert len(LINK.findall(index)) > 20
    assert "people" in pages.anchors(pages.REPOSITORY / "docs/identity-and-trust.md")
    assert "persons" not in pages.anchors(pages.REPOSITORY / "docs/identity-and-trust.md")


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: str(page.relative_to(pages.REPOSITORY)))
def test_files_and_make_targets_that_a_page_names_are_there(page):
    text = pages.prose(page)
    targets = set(re.findall(r"^([\w-]+):(?!=)", (pages.REPOSITORY / "Makefile").read_text(), re.M))
    wrong = [f"make {name}" for name in re.findall(r"`make ([a-z-]+)", text) if name not in targets]
    for path in re.findall(r"`((?:agent|coordinator|docs|packaging|proto|tests)/[\w./*{},-]+)`", text):
        choices = re.search(r"\{(.*)\}", path)
        each = [path.replace(choices[0], one) for one in choices[1].split(",")] if choices else [path]
        wrong += [one for one in each if not list(pages.REPOSITORY.glob(one.rstrip("/")))]
    assert not wrong, f"not there: {wrong}"
