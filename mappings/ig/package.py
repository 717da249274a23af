"""The guide as a FHIR NPM package: `package/package.json`, an index, a file a resource, gzipped tar.

The form is that of https://confluence.hl7.org/display/FHIR/NPM+Package+Specification. The same input gives
the same bytes.
"""

from __future__ import annotations

import gzip
import io
import tarfile
from collections.abc import Iterable, Sequence

from mappings.codes import ITB
from mappings.exact_json import dumps
from mappings.paths import Json

from .guide import NAME

INDEXED = ("resourceType", "id", "url", "version", "kind", "type")


def package(definitions: Sequence[Json], examples: Iterable[Json] = ()) -> bytes:
    """The `.tgz` of the guide; `examples` are resources with an id, which go into `package/example`."""
    files = {
        "package/package.json": dumps(_manifest(definitions)),
        "package/.index.json": _index(definitions),
    }
    for one in definitions:
        files[f"package/{_file_name(one)}"] = dumps(one)
    shown = list(examples)
    if shown:
        files["package/example/.index.json"] = _index(shown)
    for one in shown:
        files[f"package/example/{_file_name(one)}"] = dumps(one)
    return _tar(files)


def _file_name(resource: Json) -> str:
    return f"{resource['resourceType']}-{resource['id']}.json"


def _manifest(definitions: Sequence[Json]) -> Json:
    guide = definitions[-1]
    return {
        "name": NAME,
        "version": guide["version"],
        "canonical": ITB,
        "url": ITB,
        "title": guide["title"],
        "description": "Profiles, extensions, codes and searches for intrathecal baclofen pump therapy.",
        "type": "IG",
        "license": guide["license"],
        "author": guide["publisher"],
        "fhirVersions": guide["fhirVersion"],
        "dependencies": {"hl7.fhir.r4.core": "4.0.1"},
    }


def _index(resources: Iterable[Json]) -> bytes:
    files = [
        {"filename": _file_name(one)}
        | {name: one[name] for name in INDEXED if isinstance(one.get(name), str)}
        for one in resources
    ]
    return dumps({"index-version": 1, "files": files})


def _tar(files: dict[str, bytes]) -> bytes:
    packed = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=packed, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as tar,
    ):
        for name, content in files.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            entry.mode = 0o644
            tar.addfile(entry, io.BytesIO(content))
    return packed.getvalue()
