"""The documentation site: `make docs` builds it from README.md, docs/ and the docstrings into build/site.

Pages are read from the project's top folder, so that a link between two files works here and on a code host alike.
"""

import inspect
import sys
from pathlib import Path

from sphinx.application import Sphinx

sys.path.insert(0, str(Path(__file__).parent))
from reference import commands_page, config_page

project = "RetinaNet"
author = "the RetinaNet project"
root_doc = "docs/index"
include_patterns = ["README.md", "RESULTS.md", "CHANGELOG.md", "CONTRIBUTING.md", "docs/**", "data/README.md"] + [
    f"benchmarks/{page}.md" for page in ("README", "NOTES", "gpu/README")
]
exclude_patterns = ["docs/notebooks/**"]

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx.ext.viewcode"]
source_suffix = {".md": "markdown"}
myst_heading_anchors = 3
myst_links_external_new_tab = False

default_role = "code"
autodoc_member_order = "bysource"
autodoc_class_signature = "separated"
autodoc_typehints = "signature"
autodoc_typehints_format = "short"
napoleon_numpy_docstring = False

html_theme = "furo"
html_title = "RetinaNet"
html_show_sphinx = False
html_show_copyright = False
html_copy_source = False

GENERATED = {"docs/config_keys": config_page, "docs/commands": commands_page}


def fill(_app: Sphinx, page: str, text: list[str]) -> None:
    """Append what is generated from the code to the pages that have it."""
    if page in GENERATED:
        text[0] += "\n" + GENERATED[page]()


def fields(_app: Sphinx, what: str, _name: str, described: object, _options: object, lines: list[str]) -> None:
    """Docstrings of this project describe a parameter or attribute as `name: meaning`; make a list of them."""
    role = "ivar" if what == "class" else "param"
    parameters = _parameters(described)
    made, inside = [], False
    for line in lines:
        name, colon, meaning = line.partition(": ")
        if colon and (name in parameters or (what == "class" and name.islower() and name.isidentifier())):
            made += [f":{role} {name}: {meaning}"] if inside else ["", f":{role} {name}: {meaning}"]
            inside = True
        else:
            inside = inside and bool(line)
            made.append(f"    {line.strip()}" if inside else line)
    lines[:] = made


def _parameters(described: object) -> set[str]:
    try:
        return set(inspect.signature(described).parameters) if callable(described) else set()
    except ValueError:
        return set()


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", fill)
    app.connect("autodoc-process-docstring", fields)
