"""The documentation's build: `make docs` writes docs/_build/html, which opens from a disk."""

from __future__ import annotations

import logging
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "docs" / "_ext")]

from sphinx_gallery.sorting import ExplicitOrder  # noqa: E402

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
    "sphinx_gallery.gen_gallery",
    "from_code",
    "mathml",
]
DOWNLOADS = [f"examples/*.{suffix}" for suffix in ("ipynb", "json", "md5", "py", "zip")]
exclude_patterns = ["_build", "_ext", *DOWNLOADS]
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

# The notebooks: the build runs a file of examples/ that has changed since it ran last, and fails if
# the file does. The other examples are no notebooks; tests run them.
NOTEBOOKS = ("engineer", "researcher", "platform_engineer")
for package in ("pipeline", "distill", "indexes", "faiss"):  # the theme would print their logs
    logging.getLogger(package).setLevel(logging.WARNING)
FILES = rf"({'|'.join(NOTEBOOKS)})\.py$"
sphinx_gallery_conf = {
    "examples_dirs": "../examples",
    "gallery_dirs": "examples",
    "filename_pattern": f"/{FILES}",
    "ignore_pattern": f"^(?!{FILES})",
    "within_subsection_order": ExplicitOrder([f"{name}.py" for name in NOTEBOOKS]),
    "nested_sections": False,
    "image_scrapers": ("matplotlib",),
    "capture_repr": (),  # a page shows what the script prints
    "abort_on_example_error": True,
    "download_all_examples": False,
    "show_memory": False,
    "show_signature": False,
    "write_computation_times": False,
    "min_reported_time": 3_600,  # seconds: no page says how long it took on some machine
}
