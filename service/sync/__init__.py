"""Keeping the EHRs in step with the ledger: deliver what is pending, read what changed."""
