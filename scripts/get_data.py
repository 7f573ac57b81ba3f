"""Download the corpora ahead of time: python scripts/get_data.py [NAME ...]"""

import sys

from p01_autograd.lab.cli import Parser
from p03_bpe.corpus import DataError, fetch, known_assets


def main(argv: list[str] | None = None) -> int:
    """The command line; returns the exit status."""
    assets = known_assets()
    names = ", ".join(assets)
    parser = Parser(
        prog="python scripts/get_data.py", description="Download the corpora ahead of time."
    )
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"{names}; default: all")
    args = parser.parse_args(argv)
    for name in args.names:
        if name not in assets:
            parser.error(f"there is no corpus {name!r}; there are {names}")
    failed = False
    for name in args.names or assets:
        try:
            for line in fetch(name):
                print(f"{name}: {line}")
        except DataError as error:
            print(f"{name}: {error}", file=sys.stderr)
            failed = True
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
