"""`sterna pki …`: certificates for hosts, two commands for each pair."""

from __future__ import annotations

import ipaddress
import pwd
import re
import sys
from collections.abc import Awaitable, Callable, Iterable
from datetime import UTC, datetime
from pathlib import Path

from sterna.cli.command import Argument, Command, Context
from sterna.cli.exits import Exit
from sterna.cli.output import print_error, print_json, print_table
from sterna.host.identity import host_name, reachable_addresses, resolved
from sterna.host.pki import SYSTEM_PKI
from sterna.pki import layout
from sterna.pki.layout import Bundle, PkiError

NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,62}[A-Za-z0-9_])?")
"""A certificate's common name has 64 characters at most, and it becomes a file's name."""
MISSING = (
    "sterna pki needs the Python package cryptography: pip install 'sterna[pki]', or install "
    "python3-cryptography"
)
Run = Callable[[Context], Awaitable[int]]


def told(run: Run) -> Run:
    """Errors of this command as one sentence."""

    async def running(context: Context) -> int:
        try:
            return await run(context)
        except PkiError as error:
            print_error(str(error))
        except ModuleNotFoundError as error:
            if error.name is None or error.name.partition(".")[0] != "cryptography":
                raise
            print_error(MISSING)
        return Exit.FAILED

    return running


@told
async def run_init(context: Context) -> int:
    """Makes the CAs and this host's certificates, and puts them in place."""
    from sterna.pki.certificates import Authority, make_host

    args = context.args
    name = checked(args.name or host_name())
    now = datetime.now(UTC)
    control = Authority.make(f"Sterna hosts, CA of {name}"[:64], now)
    qemu = Authority.make(f"Sterna QEMU, CA of {name}"[:64], now)
    names = all_names(name, reachable_addresses(), args.also)
    files = make_host(name, names, control, qemu, now)
    files[layout.CONTROL_CA_KEY] = control.key_pem
    files[layout.QEMU_CA_KEY] = qemu.key_pem
    if not args.force and (args.dir / layout.CONTROL_CA_KEY).exists():
        raise PkiError(
            f"{args.dir} has a CA already. `sterna pki host NAME` makes another host's "
            "certificates; with --force a new CA is made, and every host needs new ones"
        )
    layout.install(files, args.dir, force=args.force, qemu_user=ids_of(args.qemu_user))
    show(context)
    tell(context, "For another host: sterna pki host NAME")
    return Exit.OK


@told
async def run_host(context: Context) -> int:
    """Makes another host's certificates, as one file to carry there."""
    from sterna.pki.certificates import Authority, make_host

    args = context.args
    name = checked(args.name)
    control, qemu = (
        Authority.read(layout.read_file(args.dir, ca), layout.read_file(args.dir, key))
        for ca, key in (
            (layout.CONTROL_CA, layout.CONTROL_CA_KEY),
            (layout.QEMU_CA, layout.QEMU_CA_KEY),
        )
    )
    names = all_names(name, resolved(name), args.also)
    path = args.out or Path(f"{name}.pki")
    bundle = Bundle(name, make_host(name, names, control, qemu, datetime.now(UTC)))
    bundle.write(path, force=args.force)
    if context.json:
        print_json({"host": name, "names": names, "bundle": str(path)})
    tell(context, f"{path}: {name} ({', '.join(names)})")
    tell(context, f"It has private keys. Carry it there, then: sterna pki install {path.name}")
    return Exit.OK


@told
async def run_install(context: Context) -> int:
    """Puts a bundle's files in place."""
    args = context.args
    bundle = Bundle.read(args.bundle)
    layout.install(bundle.files, args.dir, force=args.force, qemu_user=ids_of(args.qemu_user))
    show(context)
    tell(context, f"{args.bundle} is not needed any more, and has private keys: remove it")
    return Exit.OK


@told
async def run_show(context: Context) -> int:
    """Shows what is in place."""
    show(context)
    return Exit.OK


def show(context: Context) -> None:
    """What the certificates in place say, and when they expire. Raises: PkiError, none are."""
    from sterna.pki.certificates import look_at

    directory: Path = context.args.dir
    there = [path for path in layout.CERTIFICATES if (directory / path).exists()]
    if not there:
        raise PkiError(f"there are no certificates in {directory}")
    seen = {path: look_at(layout.read_file(directory, path)) for path in there}
    if context.json:
        print_json(
            [
                {
                    "file": str(directory / path),
                    "name": one.name,
                    "names": one.names,
                    "issuer": one.issuer,
                    "expires": one.expires.isoformat(),
                }
                for path, one in seen.items()
            ]
        )
        return
    rows = [
        (str(directory / path), one.name, ", ".join(one.names), expiry(one.expires))
        for path, one in seen.items()
    ]
    print_table(("FILE", "NAME", "VALID FOR", "EXPIRES"), rows, terminal=context.terminal)


def expiry(when: datetime) -> str:
    """A day, and how far it is."""
    days = (when - datetime.now(UTC)).days
    return f"{when:%Y-%m-%d} " + (f"(in {days} days)" if days >= 0 else "(EXPIRED)")


def tell(context: Context, text: str) -> None:
    """A line for people."""
    if not context.json:
        sys.stdout.write(f"{text}\n")


def checked(name: str) -> str:
    """Raises: PkiError, it cannot be a host's name."""
    if not NAME.fullmatch(name):
        raise PkiError(f"{name!r} cannot be a host's name in a certificate")
    return name


def all_names(name: str, addresses: Iterable[str], also: list[str]) -> tuple[str, ...]:
    """Everything a host may be called: its full and its short name, its addresses, what was said
    beside, and what it is to itself."""
    short = name if is_address(name) else name.partition(".")[0]
    there = (name, short, *addresses, *also, "localhost", "127.0.0.1", "::1")
    return tuple(dict.fromkeys(there))


def is_address(text: str) -> bool:
    """Whether it is an address and not a name."""
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def ids_of(user: str | None) -> tuple[int, int] | None:
    """User and group of a user's name. Raises: PkiError, there is none."""
    if user is None:
        return None
    try:
        found = pwd.getpwnam(user)
    except KeyError:
        raise PkiError(f"there is no user {user}") from None
    return found.pw_uid, found.pw_gid


DIRECTORY = Argument(
    ("--dir",),
    "where the certificates are (default: /etc/pki)",
    {"metavar": "DIR", "type": Path, "default": SYSTEM_PKI},
    completes="file",
)
FORCE = Argument(("--force",), "overwrite what is there", {"action": "store_true"})
ALSO = Argument(
    ("--also",),
    "another name or address of that host; can be said more than once",
    {"metavar": "NAME", "action": "append", "default": []},
)
QEMU_USER = Argument(
    ("--qemu-user",),
    "who owns QEMU's files: the user of sternad's setting qemu_user",
    {"metavar": "USER", "default": None},
)
EXAMPLE_NAME = "host-b.example.org"

INIT = Command(
    "pki init",
    "make a CA and this host's certificates",
    "Makes two CAs, one for the hosts' daemons and one for their QEMU, and this host's "
    "certificates of both, and puts them where libvirt and QEMU look. The CAs' keys stay here.",
    run_init,
    (
        Argument(("--name",), "this host's name", {"metavar": "NAME", "default": None}),
        ALSO,
        QEMU_USER,
        DIRECTORY,
        FORCE,
    ),
    needs_host=False,
    example="sterna pki init --qemu-user libvirt-qemu",
)
HOST = Command(
    "pki host",
    "make another host's certificates",
    "Makes another host's certificates, where `sterna pki init` ran, as one file to carry there. "
    "Its addresses are looked up; what they miss is added with --also.",
    run_host,
    (
        Argument(("name",), "that host's name, as others call it", {"metavar": "NAME"}),
        ALSO,
        Argument(
            ("--out",),
            "the file to write (default: NAME.pki)",
            {"metavar": "FILE", "type": Path, "default": None},
            completes="file",
        ),
        DIRECTORY,
        FORCE,
    ),
    needs_host=False,
    example=f"sterna pki host {EXAMPLE_NAME} --also 192.0.2.2",
)
INSTALL = Command(
    "pki install",
    "put a host's certificates in place",
    "Puts the file that `sterna pki host` made in place, on the host it was made for.",
    run_install,
    (
        Argument(("bundle",), "that file", {"metavar": "FILE", "type": Path}, completes="file"),
        QEMU_USER,
        DIRECTORY,
        FORCE,
    ),
    needs_host=False,
    example=f"sterna pki install {EXAMPLE_NAME}.pki --qemu-user libvirt-qemu",
)
SHOW = Command(
    "pki show",
    "show this host's certificates",
    "Shows this host's certificates, the names they are for and when they expire.",
    run_show,
    (DIRECTORY,),
    needs_host=False,
    example="sterna pki show",
)
