"""`itb ig`: the implementation guide as a package."""

from __future__ import annotations

from pathlib import Path
from typing import BinaryIO

import click

from mappings import MappingError
from mappings.exact_json import lines


@click.group()
def ig() -> None:
    """The ITB implementation guide: profiles, extensions, codes and searches."""


@ig.command("build")
@click.option(
    "--out",
    type=click.Path(dir_okay=False, path_type=Path),
    help="the file to write  [default: itb-fhir-VERSION.tgz]",
)
@click.option(
    "--examples",
    type=click.File("rb", lazy=False),
    help="events (JSON, one a line) whose resources go into the package as examples",
)
def ig_build(out: Path | None, examples: BinaryIO | None) -> None:
    """Write the guide as a FHIR NPM package, for a FHIR server or validator to load."""
    from mappings.ig import package
    from service import guide

    made = guide.definitions()
    try:
        shown = guide.examples([line for _, line in lines(examples)]) if examples else []
    except MappingError as error:
        raise click.ClickException(str(error)) from None
    target = out or Path(f"itb-fhir-{made[-1]['version']}.tgz")
    target.write_bytes(package(made, shown))
    click.echo(f"{target}: {len(made)} definitions, {len(shown)} examples")
