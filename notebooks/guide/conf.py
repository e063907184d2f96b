"""Configure the site of the guide: `make docs` builds it with Sphinx."""

import sys
from pathlib import Path

from audiopipe import __version__

sys.path.insert(0, str(Path(__file__).parent / "_extensions"))

project, author, release = "audiopipe", "the authors of audiopipe", __version__
copyright = author  # noqa: A001 - Sphinx reads this name

extensions = [
    "myst_nb",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx_click",
    "sphinx_copybutton",
    "sphinx_design",
    "generated_text",
    "mathml",
    "python_docstrings",
    "external_links",
]
exclude_patterns = ["_extensions"]

# Pages. A reference to a page, heading or label that does not exist is a warning, and warnings are errors.
myst_enable_extensions = ["attrs_inline", "colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3
myst_links_external_new_tab = True
# Cells of the pages that have some run once; their outputs are kept until the page changes.
nb_execution_mode = "cache"
nb_execution_raise_on_error = True
nb_execution_timeout = 300
nb_merge_streams = True

# Docstrings.
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented"
autodoc_preserve_defaults = True
napoleon_custom_sections = [(name, "notes_style") for name in ("Returns", "Shape", "Precision")]
napoleon_use_rtype = False
default_role = "code"
python_maximum_signature_line_length = 80
python_use_unqualified_type_names = True

# The site opens from a disk, without a network.
html_math_renderer = "mathml"
html_theme = "furo"
html_title = "audiopipe"
html_static_path = ["_static"]
html_css_files = ["guide.css"]
html_show_copyright = False
html_show_sphinx = False
html_copy_source = False
html_theme_options = {"navigation_with_keys": True}
pygments_style, pygments_dark_style = "friendly", "github-dark"
copybutton_exclude = ".linenos, .gp, .go"
