"""A card of several runs: read and grouped, compared, and written as Markdown and HTML.

==================  ============================================================================
``runs.py``         finished runs, and groups of runs that differ only in their seed
``differences.py``  paired differences to the baseline at equal steps and equal image passes
``content.py``      what stands on the card: tables and pictures
``render.py``       the files
``templates/``      what they look like
==================  ============================================================================
"""
