"""Who delivers: the runner inside this process, or Procrastinate's workers (ITB_ENGINE)."""

from __future__ import annotations

from service.store.engine import Store, StoreError

EMBEDDED, PROCRASTINATE = "embedded", "procrastinate"


def prepare(store: Store, engine: str) -> None:
    """Make the database ready for the engine of the settings; raises `StoreError` where it cannot be."""
    if engine not in (EMBEDDED, PROCRASTINATE):
        raise StoreError(f"ITB_ENGINE must be {EMBEDDED} or {PROCRASTINATE}")
    if store.engine.dialect.name != "postgresql":
        if engine == PROCRASTINATE:
            raise StoreError("ITB_ENGINE=procrastinate needs PostgreSQL: `itb migrate-to` moves a site there")
        return
    try:
        from service.store import jobs
    except ModuleNotFoundError:
        if engine == PROCRASTINATE:
            raise StoreError("Procrastinate is not installed: pip install 'itb-fhir[pg]'") from None
        return
    with store.write() as c:
        if engine == PROCRASTINATE:
            jobs.install(c)
        else:
            jobs.remove(c)
