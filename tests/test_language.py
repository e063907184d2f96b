"""Names, docstrings, comments, messages and pages use the standard terms of the field, in plain American English.

The banned words are listed here and nowhere else. CONTRIBUTING.md says which words to use instead.
"""

import ast
import io
import json
import re
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]

# A name may not be one of these words, nor contain it as a word.
NAME_WORDS = """
    again alike asked beside came condemned dice facts fed found gone heard home late look made mend mine moves nobody
    news nought ours own picture seen senseless somebody stands stirs strays suspected tell tells theirs told tongue
    took trouble whoever
"""
# A name may contain one of these words (`segments_kept`, `quantile_over_mean`), but may not be just that word.
WHOLE_NAMES = "anything each everything here nothing one over some something thing things what who"
# Names that other libraries define or that are standard terms.
ALLOWED_NAMES = {"OwnProcessGroup", "is_attached_picture", "not_found", "NotFound"}

DOCSTRING_STARTS = re.compile(
    r"(What|Whether|Who|Whose|Whoever|Whom|How|Where|When|If|As|Not|No|The same|Of|With|Without|For|So|Such|Either"
    r"|All that|Everything|Nothing|Only)\b"
)
# A function's docstring starts with a verb, not with a noun; a property may be a noun.
NOUN_STARTS = re.compile(r"(The|A|An|All|Every|Each|One|Those|This|Some|Our)\b")

PHRASES = (
    r"told",
    r"tells",
    r"whoever",
    r"nobody",
    r"somebody",
    r"beside",  # "besides" is fine
    r"theirs",
    r"of (its|their|his|one's) own",
    r"heard",
    r"(?<!there )is no (?!longer\b)[a-z]+",
    r"in (its|their) own right",
    r"whose fault",
    r"comes? to nothing",
    r"goes on with",
    r"gone on with",
    r"thereof",
    r"mend(s|ed|ing)?",
    r"nought",
    r"betimes",
    r"lest",
    r"erstwhile",
    r"what is asked",
    r"what is not [^.]* is",
    r"one another",
    r"anew",
    r"amid",
    r"alike",
    r"for good",
    r"goes away",
    r"stands still",
    r"gives up",
)
BANNED_PHRASE = re.compile(r"\b(" + "|".join(PHRASES) + r")\b", re.IGNORECASE)

BRITISH = (
    r"catalogu(e|es|ed|ing)",
    r"\w*colou?r(?<=our)\w*",
    r"\w*(behaviour|neighbour|favour|honour|labour|flavour|rumour)\w*",
    (
        r"(normal|final|serial|recogn|organ|optim|summar|initial|minim|maxim|synchron|general|special|util|categor)"
        r"is(e|es|ed|er|ers|ing|ation|ations)"
    ),
    r"(analys|paralys)(e|ed|ing)",
    r"(un)?(cancell|labell|modell|travell|signall|channell|levell)(ed|ing|er|ers)",
    r"artefacts?",
    r"grey\w*",
    r"(centi|milli|kilo)?metres?",
    r"centre[ds]?",
    r"licences?",
    r"defence",
    r"programmes?",
    r"whilst",
    r"learnt",
    r"judgement",
    r"sceptic\w*",
    r"fulfil",
)
BRITISH_SPELLING = re.compile(r"\b(" + "|".join(BRITISH) + r")\b", re.IGNORECASE)


def words_of(name: str) -> list[str]:
    """Split `snake_case` and `CamelCase` into lower-case words."""
    return [word.lower() for word in re.findall(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+", name)]


def bound_names(tree: ast.AST) -> Iterator[tuple[int, str]]:
    """Yield the line and the name of every definition, parameter, variable and attribute that the code assigns."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.lineno, node.name
        elif isinstance(node, ast.arg):
            yield node.lineno, node.arg
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.id
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.lineno, node.attr
        elif isinstance(node, ast.alias) and node.asname:
            yield node.lineno, node.asname
        elif isinstance(node, ast.ExceptHandler) and node.name:
            yield node.lineno, node.name


def is_banned_name(name: str) -> bool:
    if name in ALLOWED_NAMES or name.startswith("test_"):
        return False
    words = words_of(name)
    return not set(NAME_WORDS.split()).isdisjoint(words) or (len(words) == 1 and words[0] in WHOLE_NAMES.split())


def text_problems(text: str, first_line: int = 1) -> Iterator[str]:
    for kind, pattern in (("banned phrase", BANNED_PHRASE), ("British spelling", BRITISH_SPELLING)):
        for match in pattern.finditer(text):
            line = first_line + text.count("\n", 0, match.start())
            yield f"line {line}: {kind} {match.group()!r}"


def docstring_problems(tree: ast.AST) -> Iterator[str]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            text = ast.get_docstring(node) or ""
            match = DOCSTRING_STARTS.match(text)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) and not node.decorator_list:
                match = match or NOUN_STARTS.match(text)
            if match:
                yield f"line {node.body[0].lineno}: docstring starts with {match.group()!r}"


def python_problems(source: str) -> list[str]:
    """List what is wrong with the names, docstrings, comments and string literals of a module."""
    tree = ast.parse(source)
    problems: list[str] = []
    for line, name in bound_names(tree):
        if is_banned_name(name):
            problems.append(f"line {line}: banned name {name!r}")
        if BRITISH_SPELLING.search(" ".join(words_of(name))):
            problems.append(f"line {line}: British spelling {name!r}")
    problems.extend(docstring_problems(tree))
    for node in ast.walk(tree):
        if isinstance(node, ast.Constant) and isinstance(node.value, str):
            problems.extend(text_problems(node.value, node.lineno))
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type == tokenize.COMMENT:
            problems.extend(text_problems(token.string, token.start[0]))
    return problems


def page_problems(text: str) -> list[str]:
    """List what is wrong with a page, a script or a table of settings; `code` in a page may quote anything."""
    return list(text_problems(re.sub(r"`[^`\n]*`", "``", text)))


def notebook_problems(source: str) -> list[str]:
    problems: list[str] = []
    for number, cell in enumerate(json.loads(source)["cells"], 1):
        text = "".join(cell["source"])
        is_code = cell["cell_type"] == "code"
        problems.extend(
            f"cell {number}, {problem}" for problem in (python_problems if is_code else page_problems)(text)
        )
        if cell.get("outputs") or cell.get("execution_count"):
            problems.append(f"cell {number} has outputs")
    return problems


def long_test_names(source: str) -> list[str]:
    """List the names of tests that are longer than 60 letters."""
    names = [node.name for node in ast.walk(ast.parse(source)) if isinstance(node, ast.FunctionDef)]
    return [name for name in names if name.startswith("test_") and len(name.removeprefix("test_")) > 60]


def files(*patterns: str) -> list[str]:
    paths = {path.relative_to(ROOT) for pattern in patterns for path in ROOT.glob(pattern) if path.is_file()}
    return sorted(str(path) for path in paths if path.name != Path(__file__).name)


MODULES = files("audiopipe/**/*.py", "cluster/**/*.py", "tests/**/*.py", "notebooks/guide/**/*.py")
PAGES = files(
    "*.md",
    "notebooks/guide/**/*.md",
    "notebooks/guide/**/*.html",
    "notebooks/guide/**/*.css",
    "*.toml",
    "*.yml",
    "Makefile",
    ".ci/run",
    "cluster/**/*[!y]",
    "audiopipe/**/*.sql",
    "audiopipe/**/*.yaml",
)
NOTEBOOKS = files("notebooks/*.ipynb")


@pytest.mark.parametrize("module", MODULES)
def test_modules_use_plain_words(module: str) -> None:
    assert not python_problems((ROOT / module).read_text())


@pytest.mark.parametrize("page", PAGES)
def test_pages_use_plain_words(page: str) -> None:
    assert not page_problems((ROOT / page).read_text())


@pytest.mark.parametrize("notebook", NOTEBOOKS)
def test_notebooks_use_plain_words_and_hold_no_outputs(notebook: str) -> None:
    assert not notebook_problems((ROOT / notebook).read_text())


@pytest.mark.parametrize("module", files("tests/**/test_*.py"))
def test_names_of_tests_are_short(module: str) -> None:
    assert not long_test_names((ROOT / module).read_text())


@pytest.mark.parametrize(
    ("source", "problem"),
    [
        ("def told(): ...", "line 1: banned name 'told'"),
        ("class Heard: ...", "line 1: banned name 'Heard'"),
        ("def _is_heard(): ...", "line 1: banned name '_is_heard'"),
        ("def run(*, beside_mb): ...", "line 1: banned name 'beside_mb'"),
        ("for one in items: ...", "line 1: banned name 'one'"),
        ("self.seen = 1", "line 1: banned name 'seen'"),
        ("import audiopipe.plan as mine", "line 1: banned name 'mine'"),
        ("try: ...\nexcept ValueError as trouble: ...", "line 2: banned name 'trouble'"),
        ("def read_catalogue(): ...", "line 1: British spelling 'read_catalogue'"),
        ('"""What a server has sent."""', "line 1: docstring starts with 'What'"),
        ('def f():\n    """The same as g."""', "line 2: docstring starts with 'The same'"),
        ('def f():\n    """A table of rows."""', "line 2: docstring starts with 'A'"),
        ('class C:\n    """Of a run."""', "line 2: docstring starts with 'Of'"),
        ('"""Send rows.\n\nWhoever reads."""', "line 3: banned phrase 'Whoever'"),
        ("x = 1\ny = 2  # nobody reads it", "line 2: banned phrase 'nobody'"),
        ('raise ValueError(f"{x} is no number")', "line 1: banned phrase 'is no number'"),
        ('message = "another colour"', "line 1: British spelling 'colour'"),
    ],
)
def test_a_problem_in_a_module_is_found(source: str, problem: str) -> None:
    assert problem in python_problems(source)


@pytest.mark.parametrize(
    "source",
    [
        "segments_kept = quantile_over_mean = kept_s = 1",
        'class Span:\n    """A byte range of a spool."""',
        'class Span:\n    @property\n    def size_s(self):\n        """The length in seconds."""',
        "# There is no GPU, and besides, the run is no longer open; a realistic recognizer in four colors.",
    ],
)
def test_plain_words_are_accepted(source: str) -> None:
    assert not python_problems(source)


def test_a_problem_in_a_page_is_found_outside_of_code() -> None:
    assert page_problems("`mend` is `restore`\nand mends") == ["line 2: banned phrase 'mends'"]
    assert page_problems("The licence") == ["line 1: British spelling 'licence'"]


def test_a_problem_in_a_notebook_is_found() -> None:
    markdown = {"cell_type": "markdown", "source": ["Tells of\n", "the run"]}
    code = {"cell_type": "code", "source": ["told = 1"], "outputs": [{}], "execution_count": None}
    assert notebook_problems(json.dumps({"cells": [markdown, code]})) == [
        "cell 1, line 1: banned phrase 'Tells'",
        "cell 2, line 1: banned name 'told'",
        "cell 2 has outputs",
    ]


def test_a_long_name_of_a_test_is_found() -> None:
    assert long_test_names(f"def test_{'a' * 61}(): ...") == ["test_" + "a" * 61]
    assert not long_test_names(f"def test_{'a' * 60}(): ...")
