"""FHIR bulk exports of others: where they are read from, and what they tell."""
