"""What a contributor runs: `nox` tests and lints, `nox --list` says what else there is."""

import nox

nox.options.sessions = ["lint", "test"]
nox.options.reuse_existing_virtualenvs = True

LINTERS = ("ruff check .", "ruff format --check .", "mypy", "lint-imports")


def install(session: nox.Session, extra: str) -> None:
    session.install("-c", "constraints.txt", "-e", f".[{extra}]")


@nox.session
def test(session: nox.Session) -> None:
    """The quick tests; arguments after -- go to pytest."""
    install(session, "test")
    session.run("pytest", *session.posargs)


@nox.session
def slow(session: nox.Session) -> None:
    """The tests that take longer."""
    install(session, "test")
    session.run("pytest", "-m", "slow", *session.posargs)


@nox.session
def coverage(session: nox.Session) -> None:
    """Which lines all tests together never reach."""
    install(session, "test")
    session.run("pytest", "-m", "slow or not slow", "--cov", "--cov-report=term-missing:skip-covered")


@nox.session
def parity(session: nox.Session) -> None:
    """Comparison with PyTorch and timm."""
    install(session, "test,parity")
    session.run("pytest", "-m", "parity", "tests/parity")


@nox.session
def lint(session: nox.Session) -> None:
    """Style, types and the direction of imports."""
    install(session, "test")
    for command in LINTERS:
        session.run(*command.split())


@nox.session
def docs(session: nox.Session) -> None:
    """The documentation as a site, in site/."""
    install(session, "docs")
    session.run("sphinx-build", "-W", "docs", "site")


@nox.session
def bench(session: nox.Session) -> None:
    """One benchmark: nox -s bench -- tomogram --help."""
    install(session, "test,benchmark")
    name, *arguments = session.posargs or ["tomogram", "--help"]
    session.run("python", f"benchmarks/{name}.py", *arguments)
