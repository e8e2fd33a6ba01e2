"""SCRAM-SHA-256: the RFC's own exchange, and everything that must not pass for a proof."""

from __future__ import annotations

import base64

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sterna.rpc.scram import ScramClient, ScramError, ScramServer, Verifier, prepared

SALT = base64.b64decode("W22ZaJ0SNY7soEsUEjb6gQ==")
PENCIL = Verifier.of("pencil", SALT, 4096)
CLIENT_NONCE, SERVER_NONCE = "rOprNGfwEbeRWgbNEkqO", "%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0"


def server(verifier: Verifier = PENCIL) -> ScramServer:
    return ScramServer(lambda _: verifier, SERVER_NONCE)


def test_the_exchange_of_rfc_7677() -> None:
    ours, theirs = ScramClient("user", "pencil", CLIENT_NONCE), server()
    first = ours.first()
    assert first == b"n,,n=user,r=rOprNGfwEbeRWgbNEkqO"
    answer = theirs.first(first)
    assert answer == (
        b"r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,s=W22ZaJ0SNY7soEsUEjb6gQ==,i=4096"
    )
    proof = ours.final(answer)
    assert proof == (
        b"c=biws,r=rOprNGfwEbeRWgbNEkqO%hvYDpWUa2RaTCAfuxFIlj)hNlF$k0,"
        b"p=dHzbZapWIk4jUhN+Ute9ytag9zjfMHgsqmmiz7AndVQ="
    )
    end = theirs.final(proof)
    assert end == b"v=6rriTRBi23WpRR/wtup+mMhUZUn/dB5nLTJRsjl95G4="
    ours.check(end)
    assert theirs.user == "user"


def test_a_verifier_as_text() -> None:
    assert Verifier.parse(str(PENCIL)) == PENCIL
    assert str(PENCIL).startswith("SCRAM-SHA-256$4096:W22ZaJ0SNY7soEsUEjb6gQ==$")
    for broken in ("", "x", "MD5$1:a$b:c", "SCRAM-SHA-256$x:YQ==$YQ==:YQ==", "SCRAM-SHA-256$1:!$b"):
        with pytest.raises(ValueError):  # noqa: PT011 - each breaks in another way
            Verifier.parse(broken)


def test_a_name_with_the_protocols_own_signs() -> None:
    theirs = server()
    theirs.first(ScramClient("a=b,c", "x", "n").first())
    assert theirs.user == "a=b,c"


@pytest.mark.parametrize("password", ["Pencil", "pencil ", "x"])
def test_a_wrong_password(password: str) -> None:
    ours, theirs = ScramClient("user", password, "n"), server()
    with pytest.raises(ScramError, match="wrong password"):
        theirs.final(ours.final(theirs.first(ours.first())))


def test_a_server_that_does_not_know_the_password() -> None:
    ours = ScramClient("user", "pencil", "n")
    ours.final(server().first(ours.first()))
    for said in (b"v=" + base64.b64encode(bytes(32)), b"", b"e=other-error"):
        with pytest.raises(ScramError):
            ours.check(said)


def test_a_proof_is_for_one_login() -> None:
    ours, theirs = ScramClient("user", "pencil", "n"), server()
    proof = ours.final(theirs.first(ours.first()))
    later = ScramServer(lambda _: PENCIL, "another-nonce")
    later.first(ours.first())
    with pytest.raises(ScramError, match="does not belong"):
        later.final(proof)


@pytest.mark.parametrize(
    "first",
    [
        b"",
        b"n,,",
        b"n,,n=user",
        b"n,,r=x,n=user",
        b"n,,m=ext,n=user,r=x",
        b"n,,n=,r=x",
        b"n,,n=user,r=",
        b"p=tls-unique,,n=user,r=x",
        b"n,a=root,n=user,r=x",
        b"\xff,,n=user,r=x",
        b"n,,n=user,r=" + b"x" * 5000,
    ],
)
def test_beginnings_that_are_none(first: bytes) -> None:
    with pytest.raises(ScramError):
        server().first(first)


@pytest.mark.parametrize("first", [b"y,,n=user,r=x", b"n,a=user,n=user,r=x"])
def test_beginnings_that_are_allowed(first: bytes) -> None:
    assert server().first(first).startswith(b"r=x%hv")


@pytest.mark.parametrize(
    "answer",
    [
        b"r=other,s=YQ==,i=4096",
        b"r=n,s=YQ==,i=4096",
        b"r=nx,s=YQ==,i=1",
        b"r=nx,s=YQ==,i=99999999999",
        b"r=nx,s=YQ==,i=-5",
        b"r=nx,s=!,i=4096",
        b"r=nx",
    ],
)
def test_answers_that_are_none(answer: bytes) -> None:
    with pytest.raises(ScramError):
        ScramClient("user", "pencil", "n").final(answer)


@given(st.binary(max_size=200))
def test_no_bytes_prove_anything(message: bytes) -> None:
    theirs = server()
    with pytest.raises(ScramError):
        theirs.final(message)
    theirs.first(b"n,,n=user,r=x")
    with pytest.raises(ScramError):
        theirs.final(message)


@given(st.text(alphabet="crp=,x%AQ+/", max_size=60))
def test_no_text_like_a_proof_is_one(text: str) -> None:
    theirs = server()
    theirs.first(b"n,,n=user,r=x")
    with pytest.raises(ScramError):
        theirs.final(f"c=biws,r=x{SERVER_NONCE},p={text}".encode())


def test_one_form_of_a_password() -> None:
    assert prepared("I\u00adX") == "IX"
    assert prepared("\u00aa") == "a"
    assert prepared("a\u00a0b") == "a b"
    for text in ("", "\u00ad", "a\x07b", "\n"):
        with pytest.raises(ValueError, match="empty or has control"):
            prepared(text)
