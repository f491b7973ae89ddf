"""Versions of kernels, containerd, runc, crun and Kubernetes, as their own tools and distributions print them."""

from __future__ import annotations

import re
from functools import lru_cache

from packaging.version import InvalidVersion, Version

__all__ = ["Version", "beside", "kubernetes", "of_package", "parse", "reaches", "upstream"]

# What distributions put behind the upstream version: 2.1.9~ds1, 1.3.6+ds1, 2.1.9+unknown, 6.1.0-50-cloud-amd64.
_UPSTREAM = re.compile(r"v?(?P<base>\d+(?:\.\d+)*)(?P<pre>[-~]?(?:rc|beta|alpha)[.-]?\d+)?")


def upstream(text: str) -> str | None:
    """The upstream version at the start of `text` (`"2.1.9~ds1-1"` gives `"2.1.9"`), or None where there is none.

    A release candidate keeps its mark (`"1.2.0-rc.3"`): it sorts below the release.
    """
    match = _UPSTREAM.match(text.strip())
    if not match:
        return None
    return match["base"] + (match["pre"] or "").replace("~", "-")


def of_package(text: str) -> str:
    """The upstream version of a package's (`"1:2.1.9~ds1-1"` gives `"2.1.9"`), or `text` itself where there is none."""
    return upstream(text.partition(":")[2] or text) or text


@lru_cache(maxsize=4096)
def parse(text: str) -> Version:
    """The comparable version in `text`, whatever a distribution appended to it.

    Raises ValueError where `text` does not start with a version.
    """
    version = upstream(text)
    if version is None:
        raise ValueError(f"{text!r} does not start with a version such as 2.3.4")
    try:
        return Version(version)
    except InvalidVersion as error:
        raise ValueError(str(error)) from error


def beside(version: Version, bound: Version) -> Version:
    """`version` as it is to be compared with `bound`.

    A bound of one or two numbers is a line of releases and what came with it (2, 1.36), which its pre-releases have:
    2.0.0-rc.1 reads the configuration of 2.x, and 1.36.0-rc.1 has the gates of 1.36. One of three numbers is a release
    and what it mended: its pre-releases are below it.
    """
    if version.is_prerelease and len(bound.release) < 3 and not bound.is_prerelease:
        return Version(version.base_version)
    return version


def reaches(text: str, line: str) -> bool:
    """Whether the version in `text` is of the line of releases `line`, such as 2.1, or of a later one."""
    bound = parse(line)
    return beside(parse(text), bound) >= bound


def kubernetes(text: str) -> Version:
    """The version of Kubernetes in `text`: of any minor, which the tables may not know yet.

    Raises ValueError for another major than 1, which is a slip: containerd's version, most likely.
    """
    version = parse(text)
    if version.major != 1:
        raise ValueError(f"there is no Kubernetes {text}: its versions begin with 1")
    return version
