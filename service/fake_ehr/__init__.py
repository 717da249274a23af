"""An EHR to test against: a small FHIR R4 server that can be asked to misbehave.

Pure, values in and out: `wire` (requests, answers), `personality` (what a server of some make takes),
`search`, `state`, `writes`, `bundles`, `interactions` (the server), `faults` (what goes wrong when),
`damage` (how). `server` has the sockets.
"""
