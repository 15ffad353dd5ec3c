"""Compare several runs on a card: read and group them, then write Markdown and HTML.

==================  ============================================================================
``runs.py``         finished runs, and groups of runs that differ only in their seed
``differences.py``  paired differences to the baseline at equal steps and equal image passes
``content.py``      the tables and pictures of the card
``render.py``       the files of the card
``templates/``      the layout of these files
==================  ============================================================================
"""
