"""The HTTP API as docs/openapi.json describes it, tried by schemathesis (PyPI) with what is right and what is wrong.

    run.py SMIDGE_BINARY

A node with a token on a free port; each operation is asked with examples, with values at the edges, and with made-up ones, from a fixed
seed. What counts: every status, content type and body is one that the document names, methods that it does not name are refused, wrong
data is refused, and nothing is answered without the token that is not said to be. Streams (`follow`) do not end and are tried by
tests/it. Ends with 1 and says why if anything does not hold; leaves no process behind.
"""

import os
import re
import subprocess
import sys
import tempfile

HERE = os.path.dirname(os.path.abspath(__file__))
TOKEN = "0123456789abcdef-token"
CHECKS = [
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "negative_data_rejection",
    "missing_required_header",
    "ignored_auth",
]


def main():
    binary = os.path.abspath(sys.argv[1])
    with tempfile.TemporaryDirectory() as folder:
        command = [binary, "run", "--ephemeral", "--listen", "127.0.0.1:0", "--api", "127.0.0.1:0"]
        node = subprocess.Popen(
            command, cwd=folder, env={**os.environ, "SMIDGE__API__TOKEN": TOKEN}, stderr=subprocess.PIPE, text=True
        )
        try:
            url = None
            for line in node.stderr:
                found = re.search(r"api listening on (\S+)", line)
                if found:
                    url = found[1]
                    break
            if not url:
                sys.exit("the node ended before it listened")
            # Its log is read by nobody from here on; it drops what does not fit.
            tried = subprocess.run(
                [
                    "schemathesis",
                    "--config-file",
                    os.path.join(HERE, "schemathesis.toml"),
                    "run",
                    os.path.join(HERE, "../../docs/openapi.json"),
                    "--url",
                    url,
                    "--header",
                    f"Authorization: Bearer {TOKEN}",
                    "--checks",
                    ",".join(CHECKS),
                    "--exclude-operation-id",
                    "follow",
                    "--phases",
                    "examples,coverage,fuzzing",
                    "--max-examples",
                    "40",
                    "--seed",
                    "1",
                    "--request-timeout",
                    "60",
                    "--no-color",
                ],
                cwd=folder,
                check=False,
            )
            if node.poll() is not None:
                sys.exit(f"the node ended with {node.returncode}")
            sys.exit(tried.returncode)
        finally:
            node.terminate()
            node.wait(timeout=30)


main()
