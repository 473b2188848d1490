"""A program that keeps the contract and does nothing else. What `--col` says decides how it ends.

`fails` exits with 3, `refused` too and says that BOSS refused for good, `prints` prints its token and exits with 1,
`waits` runs until the file `go` stands beside its results, and anything else finishes at once. Every start is counted
in the file `starts`.
"""

import json
import os
import sys
import threading
from pathlib import Path

given = dict(zip(sys.argv[1::2], sys.argv[2::2], strict=True))
folder = Path(given["--results-uri"].removeprefix("file://"))
folder.mkdir(parents=True, exist_ok=True)
with (folder / "starts").open("a") as starts:
    starts.write("started\n")
print("progress 0.50 reading", flush=True)
match given["--col"]:
    case "fails":
        print("BOSS refused: <!channel> & more.", file=sys.stderr)
        sys.exit(3)
    case "refused":
        print("failure refused", flush=True)
        print("BOSS refused the token.", file=sys.stderr)
        sys.exit(3)
    case "prints":
        print(f"token {os.environ['BOSS_TOKEN']}", file=sys.stderr)
        sys.exit(1)
    case "waits":
        while not (folder / "go").exists():
            threading.Event().wait(0.02)
(folder / "preview.png").write_bytes(b"\x89PNG\r\n\x1a\n")
(folder / "results.json").write_text(
    json.dumps({"counts": {"synapses": 7}, "files": [{"name": "starts", "title": "Starts"}], "preview": "preview.png"})
)
