"""Sphinx settings; `make docs` builds these pages into build/docs, and a warning is an error."""

from importlib.metadata import version as installed_version

project = "LLM Modules"
author = "LLM Modules contributors"
version = release = installed_version("llm-modules")
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon", "sphinx_click"]
html_theme = "furo"
html_title = "LLM Modules"
myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"
autodoc_typehints_description_target = "documented_params"
autodoc_default_options = {"members": True, "show-inheritance": False}
napoleon_numpy_docstring = False
