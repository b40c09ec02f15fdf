"""Runs one attempt on the cluster: the trusted process that owns clock, rows, targets and score.

Started as `python -m harness` in the attempt's own directory, beside `bundle/` (the candidate's files), with the job as
JSON on standard input, where the trainer cannot read it. It checks the hashes of what it is about to run, starts
train.py as a child, answers its trial protocol, scores it, kills everything it started, and ends with one line,
`AUTORESEARCH {json}`, and the same JSON in `result.json`.

The package travels without the rest of the controller: it imports the standard library and itself, and numpy through
the bundle's prepare/ once its hash is known to be right. It reads real time: it is the clock the controller trusts.
Where the workspace has no trial protocol, the score is read from the trainer's output and labelled self-reported.
"""
