"""Write the files of studies and reports: tables, claims, figures, Markdown, HTML, manifests."""
