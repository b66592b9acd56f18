"""Ask git, and tell a folder without a commit from a repository that git refuses to read."""

import os
import subprocess


class NoCommit(Exception):  # noqa: N818 (names what is missing)
    """There is no git, no repository or no commit here; the message says which."""


class NotInCommit(NoCommit):
    """The commit has no such file."""


class GitRefused(Exception):  # noqa: N818 (names what happened)
    """There is a repository, but git does not read it; the message has git's reason."""


NO_REPOSITORY = "not a git repository (or any"  # parent folder; else its .git is broken


def head() -> str:
    """Return the commit that is checked out: 12 hexadecimal digits."""
    return read("rev-parse", "--verify", "--short=12", "HEAD").strip()


def changed(folder: str) -> bool:
    """Return whether a folder differs from the commit that is checked out."""
    return bool(read("status", "--porcelain", "--", folder))


def committed(path: str) -> str:
    """Return the content of a file in the commit that is checked out."""
    if not read("ls-tree", "HEAD", "--", path):
        raise NotInCommit(f"git's HEAD has no {path}")
    return read("show", f"HEAD:./{path}")


def read(*arguments: str) -> str:
    """Return what a command of git prints.

    Raises NoCommit or GitRefused.
    """
    environment = {**os.environ, "LC_ALL": "C"}  # its messages in English
    try:
        done = subprocess.run(["git", *arguments], capture_output=True, env=environment)
    except FileNotFoundError:
        raise NoCommit("git is not installed") from None
    except OSError as error:
        raise GitRefused(f"git cannot be started ({error.strerror})") from None
    if done.returncode == 0:
        return done.stdout.decode()
    said = done.stderr.decode(errors="replace")
    if NO_REPOSITORY in said:
        raise NoCommit("this folder is in no git repository")
    if "Needed a single revision" in said:
        raise NoCommit("the git repository has no commit yet")
    raise GitRefused(_reason(said))


def _reason(said: str) -> str:
    """Return git's first complaint, and the command that it recommends, in one line."""
    lines = [line.strip() for line in said.splitlines() if line.strip()] or ["no reason given"]
    fatal = next((line for line in lines if line.startswith("fatal: ")), lines[0])
    advice = [f"; `{line}` allows it" for line in lines if line.startswith("git config ")]
    return fatal.removeprefix("fatal: ") + "".join(advice[:1])
