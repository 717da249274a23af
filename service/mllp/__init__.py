"""HL7 v2 over MLLP: frames, senders, what becomes of a message, the server and the client."""
