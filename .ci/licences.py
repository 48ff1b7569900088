"""The licences of what users install with the runner: each must be one that the Apache License 2.0 goes together with.

`make lint` runs it. It follows the extras that are for users through the installed packages' own metadata; a package
that names no licence, or another one, is a line and exit code 1.
"""

import re
import sys
from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

FOR_USERS = ("all", "examples")
PERMITTED = (
    "Apache",
    "BSD",
    "CNRI-Python",
    "ISC",
    "MIT",
    "MPL",
    "PSF",
    "Python Software Foundation",
    "Unlicense",
    "0BSD",
    "Zlib",
)
SAME_AS_OURS = "apisix-runner"


def dependencies(name: str, extras: Iterable[str], found: dict[str, Distribution]) -> None:
    """Gather the installed distributions that one needs, itself left out."""
    for text in distribution(name).requires or ():
        requirement = Requirement(text)
        if requirement.marker and not any(requirement.marker.evaluate({"extra": extra}) for extra in ("", *extras)):
            continue
        key = re.sub(r"[-_.]+", "-", requirement.name).lower()
        if key == SAME_AS_OURS:
            dependencies(key, requirement.extras, found)
        elif key not in found:
            try:
                found[key] = distribution(key)
            except PackageNotFoundError:
                continue  # for another platform or Python
            dependencies(key, requirement.extras, found)


def licences(package: Distribution) -> list[str]:
    """What a package's metadata says its licence is: an SPDX expression, else classifiers, else the text it has."""
    metadata = package.metadata
    if "License-Expression" in metadata:
        return [metadata["License-Expression"]]
    lines = [line.rpartition(" :: ")[2] for line in metadata.get_all("Classifier", []) if "License ::" in line]
    return [line for line in lines if line != "OSI Approved"] or [(metadata.get("License") or "none").split("\n")[0]]


def permitted(licence: str) -> bool:
    """Whether all that a text joins with AND are permitted; of those that it joins with OR, one."""
    return all(
        any(word in one for one in re.split(r"\bOR\b", part) for word in PERMITTED)
        for part in re.split(r"\bAND\b", licence)
    )


def main() -> int:
    """Print each package whose licence is not permitted."""
    found: dict[str, Distribution] = {}
    dependencies(SAME_AS_OURS, FOR_USERS, found)
    wrong = {name: told for name, one in sorted(found.items()) if not all(map(permitted, told := licences(one)))}
    for name, told in wrong.items():
        sys.stderr.write(f"licences: {name}: expected one of {', '.join(PERMITTED)}, got {', '.join(told)}\n")
    return 1 if wrong or not found else 0


if __name__ == "__main__":
    sys.exit(main())
