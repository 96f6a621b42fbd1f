"""Studies: whole experiments as recipes, each with a page and a finding.

A study is one file, and its name is its path: ``closer_look/figure_1.py`` is the study ``closer-look/figure-1``. It
says in plain data what to measure (a frozen ``Config``, one for each scale in ``SCALES``), lists its cells (``cells``),
judges the paper's claims by the numbers (``findings``) and shows them (``section``); see
:mod:`isthmus.studies.old.study`.
"""
