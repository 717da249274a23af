"""The pages agree with the code: tables, citations, rules, codes, commands and the README's examples."""

from __future__ import annotations

import ast
import re
import subprocess
from pathlib import Path

import pytest

import doc_tables
from mappings import EVENT_TYPES, load_event
from mappings.codes import ITB
from mappings.exact_json import loads
from service.cli import main as itb

ROOT = doc_tables.ROOT
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("fixtures/**/*.md")])
CODE = [*ROOT.glob("mappings/**/*.py"), *ROOT.glob("service/**/*.py")]
CITATION = re.compile(r'docs/((?:decisions/\d{4}|[a-z]+\.md))(?:,?\s+"([^"]+)")?')
RULE = re.compile(r"^\| ([^|]+) \| (?:refused|advisory)", re.M)


def headings(page: Path) -> set[str]:
    return set(re.findall(r"^#+ (.+)$", page.read_text(), re.M))


@pytest.mark.parametrize("page", doc_tables.PAGES)
def test_the_tables_are_those_of_the_code(page: str) -> None:
    text = (ROOT / page).read_text()
    assert "<!-- table:" in text
    assert text == doc_tables.filled(text), "run `make docs`"


def test_the_pages_of_the_guide_are_those_of_the_code() -> None:
    written = {page.name: page.read_text() for page in doc_tables.GUIDE.glob("*.md")}
    assert written == doc_tables.guide_pages(), "run `make docs`"


def test_every_mapping_has_its_table() -> None:
    text = (ROOT / "docs/fhir.md").read_text()
    assert {f"<!-- table:{name} -->" for name in EVENT_TYPES} <= set(re.findall("<!-- table:.*? -->", text))


def words_of(source: Path) -> str:
    """The file's text with wrapped comments and docstrings joined."""
    return re.sub(r"\s*\n\s*#?\s*", " ", source.read_text())


@pytest.mark.parametrize("source", [*CODE, *PAGES], ids=lambda p: str(p.relative_to(ROOT)))
def test_what_is_cited_is_there(source: Path) -> None:
    for name, heading in CITATION.findall(words_of(source)):
        if name.startswith("decisions/"):
            assert list(ROOT.glob(f"docs/{name}-*.md")), name
            continue
        page = ROOT / "docs" / name
        assert page.exists(), name
        if heading:
            assert heading in headings(page), f'docs/{name} has no "{heading}"'


def test_the_code_cites_its_sources() -> None:
    cited = {heading for source in CODE for _, heading in CITATION.findall(words_of(source)) if heading}
    assert {"Rules", "Bridge", "Formulas", "Devices", "Refill", "Dose change", "Program", "Rates"} <= cited


def rules_in(source: Path) -> set[str]:
    """The rule ids that a module gives to `Issue(path, rule, …)` and its like."""
    place = {"Issue": 1, "Refused": 0, "OpenIssue": 0}
    found = set()
    for node in ast.walk(ast.parse(source.read_text())):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name) and node.func.id in place:
            at = place[node.func.id]
            given = node.args[at] if len(node.args) > at else None
            if isinstance(given, ast.Constant) and isinstance(given.value, str):
                found.add(given.value)
    return found


def test_every_rule_is_described() -> None:
    named = ("bulk", "clinical", "fhir", "hl7", "import", "mllp", "operations", "tables")
    pages = [f"{name}.md" for name in named]
    text = "".join((ROOT / "docs" / page).read_text() for page in pages)
    elsewhere = ("validate.py", "ehr.py")  # its own rules; another class of the name Refused
    used = set().union(*(rules_in(source) for source in CODE if source.name not in elsewhere))
    assert len(used) > 25
    missing = {rule for rule in used if not re.search(rf"[`| ,]{re.escape(rule)}[`| ,]", text)}
    assert not missing


def readme_examples() -> dict[str, str]:
    text = (ROOT / "README.md").read_text()
    return dict(re.findall(r"<!-- example:([a-z-]+) -->\n```sh\n(.*?)```", text, re.S))


def test_the_examples_of_the_readme_are_accepted_as_they_stand() -> None:
    examples = readme_examples()
    assert set(examples) == {"device", "refill", "dose-change"}
    for kind, example in examples.items():
        body = re.search(r"-d '(.*)'", example, re.S)
        assert body is not None
        assert load_event(loads(body[1].encode()))["type"] == kind


def test_every_command_that_a_page_names_exists() -> None:
    for page in PAGES:
        for words in re.findall(r"(?:`|bin/)itb ((?:[a-z0-9-]+ ?)+)", page.read_text()):
            command = itb
            for word in words.split():
                if not hasattr(command, "commands"):
                    break
                assert word in command.commands, f"{page.name}: itb {words}"
                command = command.commands[word]


def test_every_make_target_that_a_page_names_exists() -> None:
    targets = set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.M))
    for page in PAGES:
        for target in re.findall(r"(?:`|^)make ([a-z-]+)", page.read_text(), re.M):
            assert target in targets, f"{page.name}: make {target}"


def test_every_file_that_a_page_names_exists() -> None:
    for page in PAGES:
        for name in re.findall(r"`((?:mappings|service|tests|fixtures|docs)/[\w./-]+)`", page.read_text()):
            assert (ROOT / name).exists(), f"{page.name}: {name}"


def test_urls_of_the_project_stand_in_one_place() -> None:
    holders = {p.relative_to(ROOT).as_posix() for p in CODE if ITB in p.read_text()}
    assert holders == {"mappings/codes.py"}


def test_the_changelog_has_a_heading_for_what_is_next() -> None:
    assert "## [Unreleased]" in (ROOT / "CHANGELOG.md").read_text()


def test_make_help_lists_every_command_for_people() -> None:
    done = subprocess.run(["make", "help"], cwd=ROOT, capture_output=True, text=True, check=True)
    assert {"install", "test", "demo", "lint", "bench", "hapi", "docs"} <= {
        line.split()[0] for line in done.stdout.splitlines()
    }


def test_the_examples_of_the_library_run() -> None:
    """All blocks of the page, one after the other, as a reader would type them."""
    blocks = re.findall(r"```python\n(.*?)```", (ROOT / "docs/library.md").read_text(), re.S)
    assert len(blocks) >= 8
    exec(compile("\n".join(blocks), "docs/library.md", "exec"), {})
