"""Alembic migrations, run by `service.store.engine.migrate`."""
