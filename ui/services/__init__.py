"""State shared by the tabs: the search engine, cached analyses, visitors' libraries and index runs."""
