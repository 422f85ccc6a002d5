"""Methods compared on one corpus, and alignment against ranking: runs, measures of them, and reports."""
