"""Draw figures from data frames. The only importer of matplotlib."""
