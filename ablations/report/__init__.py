"""The reading room: from records to tables and figures. Nothing here needs torch."""
