"""The itb-fhir service: HTTP, command line, store and synchronisation around the pure mappings."""
