"""The journal's tables. `events` is the truth; the others are what its events add up to, indexed for reading."""

VERSION = 3

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
    tip       TEXT NOT NULL
);
CREATE TABLE waves (
    study     TEXT NOT NULL,
    wave      TEXT NOT NULL,
    number    INTEGER NOT NULL,
    seed      INTEGER NOT NULL,
    incumbent TEXT NOT NULL,
    proposer  TEXT NOT NULL,
    request   TEXT NOT NULL,
    base      TEXT NOT NULL,
    state     TEXT NOT NULL,
    started   REAL NOT NULL,
    ended     REAL,
    kept      TEXT,
    commit_id TEXT,
    PRIMARY KEY (study, wave)
) WITHOUT ROWID;
CREATE TABLE proposals (
    study      TEXT NOT NULL,
    proposal   TEXT NOT NULL,
    wave       TEXT NOT NULL,
    name       TEXT NOT NULL,
    hypothesis TEXT NOT NULL,
    factors    TEXT NOT NULL,
    design     TEXT NOT NULL,
    predicted  REAL,
    PRIMARY KEY (study, proposal)
) WITHOUT ROWID;
CREATE TABLE refusals (
    study      TEXT NOT NULL,
    wave       TEXT NOT NULL,
    name       TEXT NOT NULL,
    hypothesis TEXT NOT NULL,
    reason     TEXT NOT NULL,
    label      TEXT NOT NULL
);
CREATE TABLE candidates (
    study     TEXT NOT NULL,
    candidate TEXT NOT NULL,
    commit_id TEXT NOT NULL,
    parent    TEXT NOT NULL,
    knobs     TEXT NOT NULL,
    model     TEXT NOT NULL,
    proposal  TEXT NOT NULL,
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
    PRIMARY KEY (study, number)
) WITHOUT ROWID;
CREATE UNIQUE INDEX experiments_by_id ON experiments (study, experiment);
CREATE INDEX experiments_by_status ON experiments (study, status);
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
    label      TEXT,
    reason     TEXT NOT NULL DEFAULT '',
    timings    TEXT NOT NULL DEFAULT '{}',
    PRIMARY KEY (study, attempt)
) WITHOUT ROWID;
CREATE INDEX attempts_by_experiment ON attempts (study, experiment);
CREATE INDEX attempts_open ON attempts (study) WHERE ended IS NULL;
CREATE TABLE clusters (
    study       TEXT NOT NULL,
    cluster     TEXT NOT NULL,
    accelerator TEXT NOT NULL,
    seen        REAL NOT NULL,
    PRIMARY KEY (study, cluster)
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

TABLES = (
    "studies",
    "waves",
    "proposals",
    "refusals",
    "candidates",
    "experiments",
    "attempts",
    "clusters",
    "decisions",
)
