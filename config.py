"""pyinfra's own settings for this project, and what it takes for exit code 0 to mean success.

pyinfra runs this file once, before it loads the inventory. Where pyinfra 3.10 would end with 0 although nothing was
done, or break off at a question that nobody can answer, the run says so and ends with 1.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import Collection, Iterable, Mapping
from pathlib import Path
from typing import Any, NoReturn

import click
import pyinfra_cli.cli  # type: ignore[import-untyped]
import pyinfra_cli.prints  # type: ignore[import-untyped]
from pyinfra import config, logger
from pyinfra.api import Config, Host, Inventory, output
from pyinfra.api.exceptions import PyinfraError
from pyinfra.api.state import MAX_PARALLEL, StateStage
from pyinfra.connectors.ssh import SSHConnector
from pyinfra.context import ctx_state

from tasks import connecting, hiding, hosts, image_connector, open_files, speed, stopping
from tasks.files import ROOT
from tasks.refusal import NO_HOSTS, ask_late
from userns.console import plain_but_styled
from userns.diff import Mask

_context = click.get_current_context(silent=True)
_options: Mapping[str, Any] = _context.params if _context else {}
_state = ctx_state.get()


def _end(reason: str, code: int = 1) -> NoReturn:
    click.secho(f"--> {reason}", fg="red", err=True)
    sys.exit(code)


# --- Speed -----------------------------------------------------------------------------------------------------------

# One fact and a few commands a node: time goes into waiting for nodes, so wait for all of them at once, as far as the
# limit of open files allows it. pyinfra's own default is 20 for each core.
config.PARALLEL = max(1, min(200, MAX_PARALLEL))

speed.install()
connecting.install()

# --- What is said ----------------------------------------------------------------------------------------------------


def _is_to_be_said(record: logging.LogRecord) -> bool:
    """Not that an operation is none of a host's: in a fleet that has changed little, it would be all that one sees.

    No secret: `--debug` is what goes into a report, and pyinfra logs the inventory's data there. And nothing that a
    terminal would obey: what a failed command has printed are the words of its node.
    """
    said = record.getMessage()
    record.msg, record.args = plain_but_styled(Mask()(said) if record.levelno <= logging.DEBUG else said), ()
    return _options.get("verbosity", 0) > 0 or not click.unstyle(record.msg).endswith(" Skipped")


logger.addFilter(_is_to_be_said)


def _echo_plainly(message: object = None, **how: Any) -> None:
    """What `-vvv` shows of every command does not go through the logger."""
    click.echo(None if message is None else plain_but_styled(str(message)), **how)


if output.is_output_active():  # pyinfra takes a process that echoes for one with a terminal
    output.set_echo(_echo_plainly)

_jsonify = pyinfra_cli.prints.jsonify


def _jsonify_without_secrets(data: Any, *args: Any, **kwargs: Any) -> str:
    """`debug-inventory` and `debug-operations` print all that there is."""
    return hiding.hidden(_jsonify(data, *args, **kwargs))


pyinfra_cli.prints.jsonify = _jsonify_without_secrets

# --- What pyinfra would call a success -------------------------------------------------------------------------------

_first, *_others = _options.get("operations") or ("",)
if _first.startswith("tasks.") and any(each.endswith(".py") or each.startswith("tasks.") for each in _others):
    # pyinfra would hand it over as an argument. (A deploy before it sees to that itself: config.py comes too late.)
    _end(f"one at a time: {_first} alone, and then {_others[0]} in a run of its own")
image_connector.register(deploys=_first.endswith(".py") and Path(_first).resolve() == ROOT / "deploy.py")

_inventory = str(_options.get("inventory", ""))
if _inventory.endswith(".py") and not Path(_inventory).exists():
    _end(f"no such inventory: {_inventory}")  # pyinfra would take it for the name of a host
if _options.get("no_wait"):
    _end("--no-wait is not supported: pyinfra ends with 0 under it whatever fails")
if _options.get("dry"):
    _state.check_for_changes = True  # -y, or PYINFRA_YES in the environment, would make it a plan without changes


def _stop() -> NoReturn:
    _end("stopped. A change-over that has begun on a node goes on there, and finishes or undoes itself", 130)


stopping.install(_stop)

hosts.leave_none_out()

_init, _fail_hosts, _ask = _state.init, _state.fail_hosts, pyinfra_cli.cli._do_confirm


def _matching(inventory: Inventory, patterns: Iterable[str], option: str) -> list[Host]:
    """The hosts of a --limit or --exclude; of an inventory without any, _init_with_hosts tells."""
    try:
        found = [hosts.matching(inventory, pattern, option) for pattern in patterns if len(inventory)]
    except hosts.NobodyMatches as error:
        _end(str(error))
    return list({host: None for each in found for host in each})


def _init_with_hosts(inventory: Inventory, config: Config, initial_limit: list[Host] | None = None) -> None:
    if not len(inventory):
        _end(hosts.nobody(_inventory))
    if said := hosts.twice(inventory):
        _end(said)
    if initial_limit is not None and not initial_limit:
        _end(f"no host to work on: --limit and --exclude leave none of {hosts.some(inventory)}")
    chosen = inventory if initial_limit is None else initial_limit
    if too_few := open_files.allow(sum(issubclass(host.connector_cls, SSHConnector) for host in chosen)):
        _end(too_few)
    for host in inventory:
        hiding.remember(host.data.dict())
    _init(inventory, config, initial_limit=initial_limit)
    ask_late(_state)


def _fail_hosts_and_go_on(hosts: Collection[Host], activated_count: int | None = None) -> None:
    """Without hosts nothing more is done; but raising "No hosts remaining!" would cost `--json` its output."""
    try:
        _fail_hosts(hosts, activated_count)
    except PyinfraError as error:
        if str(error) != NO_HOSTS:
            raise


def _confirm(question: str) -> bool:
    """pyinfra's question, if there is anything to ask about."""
    nothing_to_do = not any(_state.ops[host] for host in _state.active_hosts)
    if _state.current_stage < StateStage.Execute and nothing_to_do:
        return True
    try:
        return bool(_ask(question))
    except (EOFError, RuntimeError):  # stdin is at its end, or closed
        click.echo(err=True)
        _end("nobody answered, so the run ends here. Pass -y to change nodes without a question, or --dry to look")


_state.init = _init_with_hosts
pyinfra_cli.cli._get_inventory_pattern_matches = _matching
if _options.get("json_output"):
    _state.fail_hosts = _fail_hosts_and_go_on
pyinfra_cli.cli._do_confirm = _confirm
