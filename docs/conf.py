"""The documentation's build: `make docs` writes docs/_build/html, which opens from a disk."""

from __future__ import annotations

import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

import winnow  # noqa: E402

project = "winnow"
author = "The winnow authors"
version = release = winnow.__version__
extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.napoleon",
    "sphinx.ext.apidoc",
    "config_fields",
    "from_code",
    "mathml",
]
exclude_patterns = ["_build", "_ext"]
suppress_warnings = ["ref.python"]  # what a package exports is described with its module too

html_theme = "furo"
html_title = f"winnow {version}"
html_static_path = ["_static"]
html_css_files = ["winnow.css"]
html_math_renderer = "mathml"
html_show_search_summary = False  # summaries are fetched by script, which file:// pages may not do
html_copy_source = False
html_show_sphinx = False
html_show_copyright = False

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath", "attrs_block"]
myst_heading_anchors = 4

default_role = "code"
smartquotes = False  # --option must stay as it is
apidoc_modules = [
    {
        "path": ROOT / package,
        "destination": f"reference/api/{package}",
        "separate_modules": False,
        "module_first": True,
        "max_depth": 2,
        "automodule_options": {"members", "show-inheritance"},
    }
    for package in ("pipeline", "distill", "indexes")
]
autodoc_member_order = "bysource"
autodoc_typehints_format = "short"
autodoc_preserve_defaults = True
python_use_unqualified_type_names = True
napoleon_numpy_docstring = False
napoleon_use_rtype = False
