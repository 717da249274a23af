"""What a clinic has as CSV, as events: cells, the map of the columns, rows."""
