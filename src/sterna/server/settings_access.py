"""The settings of who reaches the daemon over a network, and what a row of the table is."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Setting:
    """One thing that can be set.

    Attributes:
        name: key in the configuration file and attribute of `Settings`.
        kind: the type a value must have; a list is one of texts, kept as a tuple.
        unit: what a number counts, "" where it counts nothing.
        default: the value where nothing was said; None means "found out at start".
        meaning: one or two sentences for the person who sets it.
        option: the command-line option, None where only the file can say it.
        metavar: placeholder of the option's value.
        least, most: bounds of a number, inclusive.
        choices: what a text may be; empty for anything.
    """

    name: str
    kind: type[str] | type[int] | type[float] | type[bool] | type[list[str]]
    unit: str
    default: str | int | float | bool | tuple[str, ...] | None
    meaning: str
    option: str | None = None
    metavar: str | None = None
    least: float | None = None
    most: float | None = None
    choices: tuple[str, ...] = ()


ACCESS: tuple[Setting, ...] = (
    Setting(
        "tcp",
        str,
        "address:port",
        None,
        "Also listen on TCP, without encryption: on loopback, or with `allow_unprotected_tcp` "
        "anywhere. Whoever reaches this port may do everything.",
        "--tcp",
        "ADDR:PORT",
    ),
    Setting(
        "allow_unprotected_tcp",
        bool,
        "",
        False,
        "Serve plain TCP to other machines as well. Without this word the daemon does not start "
        "with such an address: everybody on that network would rule the host. `tls` needs no such "
        "word.",
        "--allow-unprotected-tcp",
    ),
    Setting(
        "tls",
        str,
        "address:port",
        None,
        "Also listen for TLS; clients expect it at port 16514. Whoever has a certificate of the "
        "CA's may do everything, unless `tls_allowed_dn` says less.",
        "--tls",
        "ADDR:PORT",
    ),
    Setting(
        "pki",
        str,
        "directory",
        "/etc/pki",
        "Where the certificates are: `CA/cacert.pem`, `libvirt/servercert.pem` and "
        "`libvirt/private/serverkey.pem` below it, and `CA/cacrl.pem` if some were revoked. "
        "SIGHUP reads them again.",
    ),
    Setting(
        "tls_allowed_dn",
        list,
        "",
        (),
        "Names that clients' certificates may have, as `virt-pki-query-dn` prints them, with `*` "
        "for anything and `?` for one character; without any, every certificate of the CA's is "
        "let in.",
    ),
    Setting(
        "tls_client_certificate",
        str,
        "",
        "required",
        "`required`: nobody is let in without a certificate. `optional`, which needs "
        '`auth_tls = "sasl"`: a certificate or a password, either is enough.',
        choices=("required", "optional"),
    ),
    Setting(
        "auth_tls",
        str,
        "",
        "none",
        "`none`: over TLS the certificate says who a client is. `sasl`: it must also give a "
        "password, set with `sterna password`.",
        choices=("none", "sasl"),
    ),
    Setting(
        "auth_tcp",
        str,
        "",
        "none",
        "`sasl`: a client on plain TCP must give a password, set with `sterna password`. That "
        "does not encrypt what follows, and `allow_unprotected_tcp` is needed all the same; "
        "libvirt's own clients refuse a password there.",
        choices=("none", "sasl"),
    ),
)
