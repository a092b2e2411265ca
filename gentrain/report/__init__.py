"""Write a study's report: tables, figures and one HTML page, from the run folder alone.

It may use results and every layer below, and is the only room that imports Matplotlib and Jinja2.
It may not train, start Ray, print, or use view, run or cluster.
"""
