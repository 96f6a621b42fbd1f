"""Studies: the experiments of the papers, each with a page and verdicts on the paper's claims.

A module of a paper declares its studies in ``STUDIES`` (:class:`isthmus.studies.study.Study`): options, experiments,
claims, tables and plots. The paper's ``presets.yaml`` has the smaller scales.
"""
