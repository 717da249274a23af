"""The ITB implementation guide: FHIR's own description of what this project writes and reads.

`definitions` gives its conformance resources, `package` the NPM package that a FHIR server or validator
loads, `pages` the pages for people. All of it is made from the rows of the mappings, the code tables, and
what `catalogue` adds in words.
"""

from .guide import definitions
from .package import package
from .pages import pages

__all__ = ["definitions", "package", "pages"]
