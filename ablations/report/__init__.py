"""From numbers to tables, figures and the page. Nothing here needs torch."""
