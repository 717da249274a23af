"""One module a revision, each a frozen picture of what it changes."""
