"""Sphinx's settings; the pages come from `docs.builder.site`, which calls it with -W."""

project = "aptt"
author = "the aptt authors"
project_copyright = "the aptt authors, Apache License 2.0"

extensions = ["myst_parser"]
myst_heading_anchors = 3
myst_enable_extensions = ["colon_fence"]
suppress_warnings = ["misc.highlighting_failure"]  # plain formulas in blocks of text

html_theme = "furo"
html_title = "aptt"
html_static_path = ["_static"]
html_theme_options = {
    "light_css_variables": {
        "color-brand-primary": "#2f6fb5",
        "color-brand-content": "#2f6fb5",
        "color-brand-visited": "#2f6fb5",
        "color-sidebar-link-text": "#3f4650",
    },
    "dark_css_variables": {
        "color-brand-primary": "#6ea8e6",
        "color-brand-content": "#6ea8e6",
        "color-brand-visited": "#6ea8e6",
        "color-sidebar-link-text": "#b9bfc7",
    },
}
html_favicon = "_static/favicon.svg"
html_css_files = ["aptt.css"]
html_copy_source = False
html_show_sourcelink = False
smartquotes = False
html_show_search_summary = False  # fetches pages, which a browser refuses in a folder
html_show_sphinx = False
html_use_index = False
pygments_style = "friendly"
pygments_dark_style = "native"
