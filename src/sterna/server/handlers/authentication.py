"""How a client says who it is. The only calls that a stranger is answered."""

from __future__ import annotations

from sterna.errors import AuthFailed
from sterna.rpc.enums import AuthKind
from sterna.rpc.msg_connect import (
    AuthListRet,
    AuthSaslInitRet,
    AuthSaslStartArgs,
    AuthSaslStartRet,
    AuthSaslStepArgs,
    AuthSaslStepRet,
)
from sterna.server.authentication import Authentication
from sterna.server.dispatch import handles
from sterna.server.session import Session


@handles("AUTH_LIST", early=True, stranger=True)
def auth_list(session: Session, args: None) -> AuthListRet:
    """On a unix socket its permissions decide, over TLS the certificate may."""
    return AuthListRet(types=[AuthKind.SASL if session.is_stranger else AuthKind.NONE])


@handles("AUTH_SASL_INIT", early=True, stranger=True)
def auth_sasl_init(session: Session, args: None) -> AuthSaslInitRet:
    return AuthSaslInitRet(mechlist=",".join(_wanted(session).mechanisms))


@handles("AUTH_SASL_START", early=True, stranger=True)
def auth_sasl_start(session: Session, args: AuthSaslStartArgs) -> AuthSaslStartRet:
    complete, data = _wanted(session).start(args.mech, None if args.nil else args.data)
    return AuthSaslStartRet(int(complete), int(data is None), data or b"")


@handles("AUTH_SASL_STEP", early=True, stranger=True)
def auth_sasl_step(session: Session, args: AuthSaslStepArgs) -> AuthSaslStepRet:
    complete, data = _wanted(session).step(None if args.nil else args.data)
    return AuthSaslStepRet(int(complete), int(data is None), data or b"")


def _wanted(session: Session) -> Authentication:
    """The session's; AuthFailed where nobody asks who the client is, or it is known already."""
    if session.authentication is None or not session.is_stranger:
        raise AuthFailed("authentication failed")
    return session.authentication
