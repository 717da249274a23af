"""The jobs of Procrastinate: one for each lane that waits, deferred in the transaction that made it wait.

A trigger on `lanes` does it, so that no writer can forget. A job says only "look at this lane then": the
delivery rows are the truth, and jobs can be thrown away and made again from them (`sweep`).
"""

from __future__ import annotations

from datetime import datetime
from typing import Any

from procrastinate.schema import SchemaManager
from sqlalchemy import Connection, text

from .times import stamp

QUEUE = "itb"
TASK = "itb.lane"
STALE_S = 3
"""A job that was begun so long ago, and whose lane nobody holds, is nobody's."""

_DEFER = f"""
SELECT procrastinate_defer_jobs_v1(array_agg(
  ROW('{QUEUE}', '{TASK}', 0, d.name, d.name,
      jsonb_build_object('endpoint_id', d.endpoint_id, 'lane', d.lane), d.due_at::timestamptz
  )::procrastinate_job_to_defer_v1))
FROM ({{lanes}}) d HAVING count(*) > 0
"""
_NAME = "{row}.endpoint_id || '/' || {row}.lane"

_TRIGGER = (
    f"""
CREATE OR REPLACE FUNCTION itb_defer_lane() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE known timestamptz;
BEGIN
  -- The lock waits for a worker that is taking this very job: then there is none any more, and one is needed.
  SELECT scheduled_at INTO known FROM procrastinate_jobs
    WHERE queueing_lock = {_NAME.format(row="NEW")} AND status = 'todo' FOR UPDATE;
  IF NOT FOUND THEN
    PERFORM * FROM ({
        _DEFER.format(
            lanes=f"SELECT {_NAME.format(row='NEW')} AS name, NEW.endpoint_id AS endpoint_id, "
            "NEW.lane AS lane, NEW.due_at AS due_at"
        )
    }) deferred;
  ELSIF known IS DISTINCT FROM NEW.due_at::timestamptz THEN
    UPDATE procrastinate_jobs SET scheduled_at = NEW.due_at::timestamptz
      WHERE queueing_lock = {_NAME.format(row="NEW")} AND status = 'todo';
  END IF;
  RETURN NULL;
END $$
""",
    "DROP TRIGGER IF EXISTS lanes_defer ON lanes",
    """CREATE TRIGGER lanes_defer AFTER INSERT OR UPDATE OF due_at ON lanes
    FOR EACH ROW WHEN (NEW.due_at IS NOT NULL) EXECUTE FUNCTION itb_defer_lane()""",
)

# Not asked is whether its worker lives. One that does leaves a job in progress where the database refused
# to hear that it is done, and Procrastinate's heartbeat ends for good where it was refused once.
_LOST = f"""
DELETE FROM procrastinate_jobs j WHERE queue_name = '{QUEUE}' AND (
  status NOT IN ('todo', 'doing')
  OR status = 'doing' AND EXISTS (
    SELECT 1 FROM procrastinate_events e WHERE e.job_id = j.id AND e.type = 'started'
    AND e.at < now() - make_interval(secs => {STALE_S})
  ) AND NOT EXISTS (
    SELECT 1 FROM lanes l WHERE l.until > :now AND l.lane = j.args->>'lane'
    AND l.endpoint_id = (j.args->>'endpoint_id')::bigint))
"""
_DUE_BY_OUR_CLOCK = f"""
UPDATE procrastinate_jobs j SET scheduled_at = NULL FROM lanes l
WHERE j.queueing_lock = {_NAME.format(row="l")} AND j.status = 'todo' AND j.scheduled_at > now()
  AND l.due_at <= :now
"""
# Behind a breaker that is open a job finds nothing to do; where it may be asked again, one job asks.
_WITHOUT_A_JOB = f"""
SELECT name, endpoint_id, lane, due_at FROM (
  SELECT {_NAME.format(row="l")} AS name, l.endpoint_id, l.lane, l.due_at, g.until AS shut,
    row_number() OVER (PARTITION BY l.endpoint_id ORDER BY l.due_at, l.lane) AS place
  FROM lanes l JOIN endpoints e ON e.id = l.endpoint_id LEFT JOIN gates g ON g.endpoint_id = e.id
  WHERE l.due_at IS NOT NULL AND e.enabled AND (l.until IS NULL OR l.until <= :now)
    AND (g.until IS NULL OR g.until <= :now)
    AND NOT EXISTS (SELECT 1 FROM procrastinate_jobs j
                    WHERE j.lock = {_NAME.format(row="l")} AND j.status IN ('todo', 'doing'))
) w
WHERE shut IS NULL OR place = 1 AND NOT EXISTS (
  SELECT 1 FROM procrastinate_jobs j
  WHERE j.status IN ('todo', 'doing') AND (j.scheduled_at IS NULL OR j.scheduled_at <= now())
    AND (j.args->>'endpoint_id')::bigint = w.endpoint_id)
ORDER BY due_at LIMIT 10000
"""


def install(c: Connection) -> None:
    """Make Procrastinate's tables where they are not there, and the trigger that defers."""
    if c.execute(text("SELECT to_regclass('procrastinate_jobs')")).scalar() is None:
        _run(c, SchemaManager.get_schema())
    for statement in _TRIGGER:
        _run(c, statement)


def remove(c: Connection) -> None:
    """No more jobs: the embedded runner serves the lanes."""
    _run(c, "DROP TRIGGER IF EXISTS lanes_defer ON lanes")


def _run(c: Connection, statement: str) -> None:
    # Past SQLAlchemy, which would have psycopg look for parameters in it, and allow one statement only.
    cursor: Any = c.connection.cursor()
    cursor.execute(statement)
    cursor.close()


def sweep(c: Connection, *, now: datetime) -> int:
    """Throw away jobs that nobody is about, and defer each waiting lane that has no job and may go; how many.

    `now` is the workers' clock, by which lanes are due.
    """
    c.execute(text(_LOST), {"now": stamp(now)})
    c.execute(text(_DUE_BY_OUR_CLOCK), {"now": stamp(now)})  # the database's may be behind
    made = c.execute(text(_DEFER.format(lanes=_WITHOUT_A_JOB)), {"now": stamp(now)}).scalar()
    return len(made or ())
