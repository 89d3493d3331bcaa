"""Sphinx configuration."""

from fcntile import __version__

project = "fcntile"
author = "the fcntile developers"
release = version = __version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
myst_enable_extensions = ["colon_fence", "dollarmath"]
myst_heading_anchors = 3
exclude_patterns = ["_build", "demo/README.md", "bundled_model/README.md"]
html_theme = "furo"
html_title = "fcntile"
autodoc_typehints = "none"
default_role = "code"
