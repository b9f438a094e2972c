"""`make demo` without its build."""

import os
import subprocess

from harness.paths import LIBRARY, ROOT


def test_the_demo_ends_with_equal_databases():
    env = os.environ | {"LITESTREAM_VFS_LIB": str(LIBRARY)}
    done = subprocess.run([ROOT / "scripts" / "demo.sh"], env=env, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "equal to the source" in done.stdout.splitlines()[-1]
