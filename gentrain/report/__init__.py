"""A study as tables, figures and one page, from the run folder alone.

It may touch results; the only place that imports Matplotlib and Jinja2.
"""
