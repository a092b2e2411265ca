"""A study as tables, figures and one HTML page, read from the run folder alone: no Ray, and torch only for figure 1."""
