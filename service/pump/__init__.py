"""The arithmetic of an intrathecal pump: pure, exact, informational (never for dosing decisions)."""
