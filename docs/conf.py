"""Sphinx: `sphinx-build -W -n docs site` builds the pages (pip install -e '.[docs]')."""

import jaxcryo

project = "jaxcryo"
copyright = "the jaxcryo authors"
release = version = jaxcryo.__version__

extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
default_role = "code"
exclude_patterns = ["_build"]
nitpicky = True
nitpick_ignore_regex = [
    # Types of other projects are not linked: their lists of names would have to be fetched.
    ("py:.*", r"(?!jaxcryo\.).*"),
    # Handed from one function to the next; nobody has to look into them.
    (
        "py:class",
        r"jaxcryo\.(runtime\.opened\.OpenModel|picking\.stitch\.Slab|picks\.(geometry|formats\.base)\.\w+|config\.\w+|calibration\.\w+)",
    ),
]

myst_heading_anchors = 3
autodoc_member_order = "bysource"
autodoc_typehints = "description"

html_theme = "furo"
html_title = f"jaxcryo {release}"
