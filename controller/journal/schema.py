"""The journal's tables. `events` is the truth; the others are what its events add up to, indexed for reading."""

VERSION = 6

DDL = """
CREATE TABLE events (
    seq   INTEGER PRIMARY KEY,
    at    REAL NOT NULL,
    study TEXT NOT NULL,
    body  TEXT NOT NULL
);
CREATE TABLE studies (
    study     TEXT PRIMARY KEY,
    started   REAL NOT NULL,
    branch    TEXT NOT NULL,
    metric    TEXT NOT NULL,
    minimize  INTEGER NOT NULL,
    settings  TEXT NOT NULL,
    baseline  TEXT NOT NULL,
    incumbent TEXT NOT NULL,
    tip       TEXT NOT NULL,
    arriving  INTEGER NOT NULL DEFAULT 0,
    awaited   TEXT NOT NULL DEFAULT ''
);
CREATE TABLE tallies (
    study TEXT NOT NULL,
    what  TEXT NOT NULL,
    total INTEGER NOT NULL,
    PRIMARY KEY (study, what)
) WITHOUT ROWID;
CREATE TABLE programs (
    study   TEXT NOT NULL,
    number  INTEGER NOT NULL,
    at      REAL NOT NULL,
    text    TEXT NOT NULL,
    changed TEXT NOT NULL,
    PRIMARY KEY (study, number)
) WITHOUT ROWID;
CREATE TABLE notes (
    study   TEXT NOT NULL,
    number  INTEGER NOT NULL,
    note    TEXT NOT NULL,
    at      REAL NOT NULL,
    text    TEXT NOT NULL,
    author  TEXT NOT NULL,
    hint    TEXT NOT NULL,
    retired TEXT,
    PRIMARY KEY (study, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX notes_by_id ON notes (study, note);
CREATE UNIQUE INDEX notes_by_hint ON notes (study, hint) WHERE hint != '';
CREATE INDEX notes_open ON notes (study, number) WHERE retired IS NULL;
CREATE TABLE runs (
    study   TEXT NOT NULL,
    number  INTEGER NOT NULL,
    started REAL NOT NULL,
    asked   TEXT NOT NULL,
    stopped REAL,
    why     TEXT,
    reason  TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (study, number)
) WITHOUT ROWID;
CREATE TABLE waves (
    study     TEXT NOT NULL,
    wave      TEXT NOT NULL,
    number    INTEGER NOT NULL,
    seed      INTEGER NOT NULL,
    incumbent TEXT NOT NULL,
    against   TEXT NOT NULL,
    proposer  TEXT NOT NULL,
    request   TEXT NOT NULL,
    base      TEXT NOT NULL,
    against_base TEXT NOT NULL,
    state     TEXT NOT NULL,
    started   REAL NOT NULL,
    ended     REAL,
    kept      TEXT,
    commit_id TEXT,
    PRIMARY KEY (study, wave)
) WITHOUT ROWID;
CREATE INDEX waves_by_number ON waves (study, number);
CREATE INDEX waves_open ON waves (study, number) WHERE state != 'ended';
CREATE INDEX waves_kept ON waves (study, number) WHERE kept IS NOT NULL;
CREATE TABLE proposals (
    study      TEXT NOT NULL,
    proposal   TEXT NOT NULL,
    wave       TEXT NOT NULL,
    name       TEXT NOT NULL,
    hypothesis TEXT NOT NULL,
    factors    TEXT NOT NULL,
    design     TEXT NOT NULL,
    edited     INTEGER NOT NULL,
    predicted  REAL,
    low        REAL,
    high       REAL,
    falsified_by TEXT NOT NULL,
    repairs    TEXT NOT NULL,
    submission TEXT NOT NULL,
    PRIMARY KEY (study, proposal)
) WITHOUT ROWID;
CREATE INDEX proposals_by_wave ON proposals (study, wave);
CREATE INDEX proposals_submitted ON proposals (study, submission) WHERE submission != '';
CREATE TABLE refusals (
    study      TEXT NOT NULL,
    wave       TEXT NOT NULL,
    name       TEXT NOT NULL,
    hypothesis TEXT NOT NULL,
    reason     TEXT NOT NULL,
    label      TEXT NOT NULL,
    submission TEXT NOT NULL
);
CREATE INDEX refusals_by_wave ON refusals (study, wave);
CREATE INDEX refusals_submitted ON refusals (study, submission) WHERE submission != '';
CREATE TABLE candidates (
    study     TEXT NOT NULL,
    candidate TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    parent    TEXT NOT NULL,
    knobs     TEXT NOT NULL,
    model     TEXT NOT NULL,
    proposal  TEXT NOT NULL,
    origin    TEXT NOT NULL,
    PRIMARY KEY (study, candidate)
) WITHOUT ROWID;
CREATE INDEX candidates_by_model ON candidates (study, model);
CREATE TABLE experiments (
    study         TEXT NOT NULL,
    number        INTEGER NOT NULL,
    experiment    TEXT NOT NULL,
    wave          TEXT NOT NULL,
    candidate     TEXT NOT NULL,
    role          TEXT NOT NULL,
    tier          TEXT NOT NULL,
    seed          INTEGER NOT NULL,
    replicate     INTEGER NOT NULL,
    status        TEXT NOT NULL,
    reason        TEXT NOT NULL DEFAULT '',
    accelerator   TEXT,
    cluster       TEXT,
    attempts      INTEGER NOT NULL DEFAULT 0,
    started       REAL,
    finished      REAL,
    score         REAL,
    metrics       TEXT NOT NULL DEFAULT '{}',
    hashes        TEXT NOT NULL DEFAULT '{}',
    budget        TEXT NOT NULL DEFAULT '',
    self_reported INTEGER NOT NULL DEFAULT 0,
    unsandboxed   INTEGER NOT NULL DEFAULT 0,
    curve         TEXT NOT NULL DEFAULT '[]',
    PRIMARY KEY (study, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX experiments_by_id ON experiments (study, experiment);
CREATE INDEX experiments_by_status ON experiments (study, status, finished);
CREATE INDEX experiments_by_wave ON experiments (study, wave);
CREATE INDEX experiments_by_candidate ON experiments (study, candidate);
CREATE TABLE attempts (
    study      TEXT NOT NULL,
    attempt    TEXT NOT NULL,
    experiment TEXT NOT NULL,
    cluster    TEXT NOT NULL,
    nonce      TEXT NOT NULL,
    submitted  REAL NOT NULL,
    started    REAL,
    ended      REAL,
    pruned     TEXT,
    label      TEXT,
    reason     TEXT NOT NULL DEFAULT '',
    timings    TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (study, attempt)
) WITHOUT ROWID;
CREATE INDEX attempts_by_experiment ON attempts (study, experiment);
CREATE INDEX attempts_failed ON attempts (study, label) WHERE label IS NOT NULL;
CREATE INDEX attempts_open ON attempts (study) WHERE ended IS NULL;
CREATE TABLE leases (
    study       TEXT NOT NULL,
    number      INTEGER NOT NULL,
    cluster     TEXT NOT NULL,
    accelerator TEXT NOT NULL,
    since       REAL NOT NULL,
    until       REAL,
    reason      TEXT NOT NULL DEFAULT '',
    PRIMARY KEY (study, number)
) WITHOUT ROWID;
CREATE INDEX leases_open ON leases (study, cluster) WHERE until IS NULL;
CREATE TABLE calls (
    study       TEXT NOT NULL,
    call        INTEGER NOT NULL,
    usd_at_most REAL NOT NULL,
    usd         REAL,
    PRIMARY KEY (study, call)
) WITHOUT ROWID;
CREATE TABLE decisions (
    study     TEXT NOT NULL,
    wave      TEXT NOT NULL,
    candidate TEXT NOT NULL,
    at        REAL NOT NULL,
    verdict   TEXT NOT NULL,
    change    REAL,
    low       REAL,
    high      REAL,
    body      TEXT NOT NULL,
    PRIMARY KEY (study, wave, candidate)
) WITHOUT ROWID;
"""

STATISTICS = {
    "notes": {
        "notes": "1000 1000 1",
        "notes_by_id": "1000 1000 1",
        "notes_by_hint": "100 100 1",
        "notes_open": "20 20 1",
    },
    "waves": {"waves": "1000 1000 1", "waves_by_number": "1000 1000 1", "waves_open": "3 3 1", "waves_kept": "9 9 1"},
    "proposals": {
        "proposals": "20000 20000 1",
        "proposals_by_wave": "20000 20000 20",
        "proposals_submitted": "100 100 1",
    },
    "refusals": {"refusals_by_wave": "10000 10000 10", "refusals_submitted": "100 100 1"},
    "candidates": {"candidates": "100000 100000 1", "candidates_by_model": "100000 100000 1"},
    "experiments": {
        "experiments": "100000 90000 1",
        "experiments_by_id": "100000 100000 1",
        "experiments_by_status": "100000 100000 10000 1",
        "experiments_by_wave": "100000 100000 100",
        "experiments_by_candidate": "100000 100000 2",
    },
    "attempts": {
        "attempts": "100000 100000 1",
        "attempts_by_experiment": "100000 100000 1",
        "attempts_failed": "20000 20000 2000",
        "attempts_open": "30 30",
    },
    "leases": {"leases": "100 100 1", "leases_open": "16 16 1"},
}
"""What SQLite would find out about a large study, in the words of its sqlite_stat1: rows, and rows for each key.

Knowing nothing it takes a study for ten rows, and reads them all where an index would name the few that are meant.
"""

TABLES = (
    "studies",
    "tallies",
    "programs",
    "notes",
    "runs",
    "waves",
    "proposals",
    "refusals",
    "candidates",
    "experiments",
    "attempts",
    "leases",
    "calls",
    "decisions",
)
