"""`report.html`: a run or a score on one page, in one file that needs no network."""
