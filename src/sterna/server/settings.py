"""What can be set, in one table: the TOML file, the command line and the docs read it.

A value comes from, in this order: the command line, the configuration file, the default. Anything
that is not understood is an error that names the file and the key: a setting that is silently
ignored is one the administrator believes in.
"""

from __future__ import annotations

import argparse
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import sterna
from sterna.server.settings_access import ACCESS, Setting

USAGE_ERROR = 2
"""Exit code for a command line or configuration file we cannot use."""


class SettingsError(Exception):
    """The command line or the configuration file cannot be used; the text says what to change."""


TABLE: tuple[Setting, ...] = (
    Setting(
        "name",
        str,
        "",
        None,
        "The host's name, as clients and the other side of a migration see it. "
        "By default the machine's own.",
        "--name",
        "NAME",
    ),
    *ACCESS,
    Setting(
        "migration_address",
        str,
        "address",
        None,
        "Where incoming guests are received: the address an incoming QEMU listens on and the one "
        "the source is told. By default every address is listened on, and the source is told the "
        "host's name if that leads here, else the first address that other hosts can reach.",
        "--migration-address",
        "ADDR",
    ),
    Setting(
        "migration_port_min",
        int,
        "port",
        49152,
        "First port for incoming guests.",
        least=1,
        most=65535,
    ),
    Setting(
        "decision_port",
        int,
        "port",
        0,
        "Port where other hosts ask what was decided about guests that came here; 0 takes the "
        "first free one from 49216 upward. It opens for the first such guest, and is kept.",
        least=0,
        most=65535,
    ),
    Setting(
        "migration_port_max",
        int,
        "port",
        49215,
        "Last port for incoming guests.",
        least=1,
        most=65535,
    ),
    Setting(
        "migration_tls_dir",
        str,
        "directory",
        "/etc/pki/qemu",
        "Where QEMU finds the certificates of encrypted migrations: `ca-cert.pem`, as destination "
        "`server-cert.pem` and `server-key.pem`, as source `client-cert.pem` and "
        "`client-key.pem`. The other host's must be of the same authority.",
    ),
    Setting(
        "migration_tls_force",
        bool,
        "",
        False,
        "Guests come and go only encrypted: a migration without TLS is refused.",
    ),
    Setting(
        "socket_mode",
        str,
        "octal",
        "0700",
        "Permissions of the read-write socket. Who can open it can do everything.",
    ),
    Setting(
        "socket_read_only_mode",
        str,
        "octal",
        "0777",
        "Permissions of the read-only socket. The directory above must let them in as well.",
    ),
    Setting(
        "socket_group",
        str,
        "",
        "",
        "Group that owns both sockets; empty leaves the daemon's own.",
    ),
    Setting(
        "keepalive_interval_s",
        float,
        "s",
        1.0,
        "A client that asked for keepalive and stays silent for so long is pinged.",
        least=0.05,
        most=3600,
    ),
    Setting(
        "keepalive_count",
        int,
        "pings",
        4,
        "So many pings without any answer end the connection, one interval later. With the "
        "interval this is how long an orphan of a silent peer lives (L3): 5 seconds by default.",
        least=1,
        most=1000,
    ),
    Setting(
        "peer_silence_s",
        float,
        "s",
        5.0,
        "How long a client that drives a migration, or the host at its other end, may hold it up "
        "without a sign of life: an incoming guest dies with such a client (L3), and a copy of "
        "which nothing moves any more is given up.",
        least=1,
        most=3600,
    ),
    Setting(
        "clients_max",
        int,
        "connections",
        5000,
        "Connections served at once; one more is closed at once.",
        least=1,
        most=100000,
    ),
    Setting(
        "client_calls_max",
        int,
        "calls",
        32,
        "Calls of one client in flight; the next ones wait unread in its socket.",
        least=1,
        most=1024,
    ),
    Setting(
        "qemu_user",
        str,
        "",
        "",
        "User that QEMU runs as where the daemon is root; empty runs it as the daemon.",
    ),
    Setting(
        "qemu_group",
        str,
        "",
        "",
        "Group that QEMU runs as where the daemon is root; empty takes the user's own.",
    ),
    Setting(
        "verbose",
        bool,
        "",
        False,
        "Log every call and every monitor command as well.",
        "--verbose",
    ),
)


@dataclass(frozen=True, slots=True)
class Settings:
    """The values in force. The meaning of each is in `TABLE`."""

    name: str | None = None
    tcp: str | None = None
    allow_unprotected_tcp: bool = False
    tls: str | None = None
    pki: str = "/etc/pki"
    tls_allowed_dn: tuple[str, ...] = ()
    tls_client_certificate: str = "required"
    auth_tcp: str = "none"
    auth_tls: str = "none"
    migration_address: str | None = None
    migration_port_min: int = 49152
    migration_port_max: int = 49215
    decision_port: int = 0
    migration_tls_dir: str = "/etc/pki/qemu"
    migration_tls_force: bool = False
    socket_mode: str = "0700"
    socket_read_only_mode: str = "0777"
    socket_group: str = ""
    keepalive_interval_s: float = 1.0
    keepalive_count: int = 4
    peer_silence_s: float = 5.0
    clients_max: int = 5000
    client_calls_max: int = 32
    qemu_user: str = ""
    qemu_group: str = ""
    verbose: bool = False
    root: Path | None = None
    """Everything is kept below this directory; None takes the system's or the user's places."""
    config_file: Path | None = None


def parser() -> argparse.ArgumentParser:
    """The command line, made from the table."""
    made = argparse.ArgumentParser(
        prog="sternad",
        description="Sterna's daemon: manages this host's QEMU guests and moves them, running, "
        "between hosts. Runs in the foreground; SIGTERM stops it and leaves guests running.",
    )
    made.add_argument("--version", action="version", version=f"sternad {sterna.__version__}")
    made.add_argument(
        "--root",
        metavar="DIR",
        type=Path,
        help="keep everything below DIR: sockets, store, logs (default: the system's places for "
        "root, the user's XDG directories otherwise)",
    )
    made.add_argument(
        "--config",
        metavar="FILE",
        type=Path,
        help="TOML configuration file (default: sternad.toml in the configuration directory, "
        "where there is one)",
    )
    for setting in TABLE:
        if setting.option is None:
            continue
        if setting.kind is bool:
            made.add_argument(
                setting.option,
                dest=setting.name,
                action="store_true",
                default=None,
                help=setting.meaning,
            )
        else:
            made.add_argument(
                setting.option,
                dest=setting.name,
                metavar=setting.metavar,
                default=None,
                help=setting.meaning,
            )
    return made


def from_command_line(argv: Sequence[str], default_config: Path | None = None) -> Settings:
    """Settings of a command line and the configuration file it names.

    Args:
        argv: arguments without the program's name.
        default_config: file that is read when none is named and it exists.

    Raises:
        SettingsError: a value or the file cannot be used.
        SystemExit: --help and --version (0), an unknown option (2).
    """
    options = parser().parse_args(argv)
    given = vars(options)
    file: Path | None = given["config"]
    if file is None and default_config is not None and default_config.exists():
        file = default_config
    return resolve(given, file, given["root"])


def resolve(given: Mapping[str, object], file: Path | None, root: Path | None) -> Settings:
    """Command line over file over defaults.

    Raises:
        SettingsError: as for `from_command_line`.
    """
    values: dict[str, object] = {s.name: s.default for s in TABLE}
    if file is not None:
        values.update(read_file(file))
    for setting in TABLE:
        value = given.get(setting.name)
        if value is not None:
            values[setting.name] = checked(setting, value, setting.option or setting.name)
    made = Settings(
        **values,  # type: ignore[arg-type]  # each was checked against its row of TABLE
        root=None if root is None else Path(root).absolute(),
        config_file=file,
    )
    check_together(made)
    return made


def read_file(file: Path) -> dict[str, object]:
    """The settings a TOML file makes.

    Raises:
        SettingsError: unreadable, not TOML, an unknown key or a value of the wrong type.
    """
    try:
        document = tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(f"cannot read {file}: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"{file}: not valid TOML: {error}") from error
    known = {s.name: s for s in TABLE}
    values: dict[str, object] = {}
    for key, value in document.items():
        if key not in known:
            raise SettingsError(f"{file}: unknown setting '{key}'")
        values[key] = checked(known[key], value, f"{file}: {key}")
    return values


def checked(setting: Setting, value: object, where: str) -> object:
    """The value, if the table allows it.

    Raises:
        SettingsError: wrong type or out of bounds; `where` says whose it is.
    """
    if setting.kind is float and type(value) is int:
        value = float(value)
    if setting.kind is list and type(value) is list:
        if not all(isinstance(item, str) for item in value):
            raise SettingsError(f"{where}: expected a list of strings, got {value!r}")
        return tuple(value)
    if type(value) is not setting.kind:
        raise SettingsError(f"{where}: expected {setting.kind.__name__}, got {value!r}")
    if isinstance(value, int | float) and not isinstance(value, bool):
        if setting.least is not None and value < setting.least:
            raise SettingsError(f"{where}: {value} is below {setting.least}")
        if setting.most is not None and value > setting.most:
            raise SettingsError(f"{where}: {value} is above {setting.most}")
    if setting.name in {"socket_mode", "socket_read_only_mode"}:
        octal(str(value), where)
    if setting.choices and value not in setting.choices:
        raise SettingsError(f"{where}: expected {' or '.join(setting.choices)}, got {value!r}")
    if setting.name in {"tcp", "tls"}:
        tcp_address(str(value), where)
    return value


def check_together(s: Settings) -> None:
    """Rules that concern more than one setting.

    Raises:
        SettingsError: they contradict each other.
    """
    if s.migration_port_min > s.migration_port_max:
        raise SettingsError(
            f"migration_port_min {s.migration_port_min} is above "
            f"migration_port_max {s.migration_port_max}"
        )
    if s.migration_port_min <= s.decision_port <= s.migration_port_max:
        raise SettingsError(
            f"decision_port {s.decision_port} is one of the ports for incoming guests"
        )
    if s.name is not None and (not s.name or len(s.name) > 255 or "\0" in s.name):
        raise SettingsError(f"--name: {s.name!r} is not a host name")
    if s.tls_client_certificate == "optional" and s.auth_tls != "sasl":
        raise SettingsError(
            "tls_client_certificate = 'optional' needs auth_tls = 'sasl': anybody could come in"
        )
    if s.qemu_group and not s.qemu_user:
        raise SettingsError("qemu_group needs qemu_user")


def octal(text: str, where: str) -> int:
    """Permission bits.

    Raises:
        SettingsError: not three or four octal digits.
    """
    try:
        mode = int(text, 8)
    except ValueError:
        mode = -1
    if not 0 <= mode <= 0o777:
        raise SettingsError(f"{where}: expected permissions like '0770', got {text!r}")
    return mode


def tcp_address(text: str, where: str = "--tcp") -> tuple[str, int]:
    """Host and port of `ADDR:PORT`, `[ADDR]:PORT` or `:PORT` (all addresses).

    Raises:
        SettingsError: no port, or not a port.
    """
    host, colon, port = text.rpartition(":")
    if not colon or not port.isdecimal() or int(port) > 65535:
        raise SettingsError(f"{where}: expected ADDR:PORT, got {text!r}")
    if host.startswith("[") and host.endswith("]"):
        host = host[1:-1]
    elif ":" in host:
        raise SettingsError(f"{where}: an IPv6 address is written [ADDR]:PORT, got {text!r}")
    return host, int(port)


def reference_table() -> str:
    """The table of the docs, as Markdown."""
    lines = ["| setting | type | unit | default | meaning |", "|---|---|---|---|---|"]
    for s in TABLE:
        default = "" if s.default in (None, "", ()) else f"`{s.default}`".lower()
        option = f" (`{s.option}`)" if s.option else ""
        lines.append(
            f"| `{s.name}`{option} | {s.kind.__name__} | {s.unit} | {default} | {s.meaning} |"
        )
    return "\n".join(lines) + "\n"
