"""`python -m prepare`: make the current profile's data, or say where it is."""

from __future__ import annotations

import time

from prepare import dataset
from prepare.profile import CURRENT


def main() -> None:
    """Prepare the current profile and print what there is and where."""
    begin = time.monotonic()
    directory = dataset.ensure(CURRENT)
    recorded = dataset.manifest(CURRENT)
    print(f"profile    {CURRENT.name}: {CURRENT.corpus}, vocabulary of {CURRENT.vocab_size}")
    for name, count in recorded["tokens"].items():
        print(f"{name:<10} {count:,} tokens")
    for name, digest in dataset.hashes(CURRENT).items():
        print(f"{name:<10} sha256 {digest}")
    print(f"ready in {time.monotonic() - begin:.1f} s: {directory}")


if __name__ == "__main__":
    main()
