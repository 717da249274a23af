"""`itb`: the commands, each a module of `service/commands`."""

from __future__ import annotations

import click

from .commands import (
    conflicts,
    convert,
    convert_hl7,
    database,
    deliveries,
    endpoints,
    explain,
    guide,
    keys,
    made_up,
    serve,
    servers,
)
from .commands.jobs import COMMANDS as JOBS
from .interpreter import tune
from .opening import Commands


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="itb-fhir")
def main() -> None:
    """Intrathecal baclofen pump records to and from FHIR R4, in step with hospital EHRs.

    Not a medical device: it transfers, stores, converts and shows. Settings come from the environment
    (ITB_DATABASE_URL and others: see the README).
    """
    tune()


for _message in convert_hl7.COMMANDS:
    convert.convert.add_command(_message)
for _command in (
    *JOBS,
    explain.explain,
    explain.impact,
    guide.ig,
    keys.keys,
    endpoints.endpoints,
    deliveries.deliveries,
    serve.serve,
    serve.worker,
    made_up.fixtures,
    made_up.fake_ehr,
    *database.COMMANDS,
    *servers.COMMANDS,
    *conflicts.COMMANDS,
):
    main.add_command(_command)


if __name__ == "__main__":
    main()
