"""What the tabs share: the search engine, cached analyses, visitors' libraries and index runs."""
