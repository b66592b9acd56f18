"""Numbers that the papers print: a module for each paper, a table for each table, with sources."""
