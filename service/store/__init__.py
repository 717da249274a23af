"""The ledger on disk: tables, one function a statement, and no rules (docs: CONTRIBUTING.md, "store")."""
