"""The record as a FHIR R4 server: what the ledger holds, read, searched, validated and written."""
