"""Write the reports: Markdown, HTML, verdicts, numbers for DVC and a manifest."""
