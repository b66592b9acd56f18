"""What the papers print, one module per paper and one table per table, each with its source."""
