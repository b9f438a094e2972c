"""The file of the library: what it exports, what it needs, how it is protected.

`make dist` refuses to publish one that has the faults of which these tests are.
"""

import re
import subprocess
import sys

import pytest

from harness.paths import LIBRARY, ROOT

sys.path.insert(0, str(ROOT / "scripts"))
import elf  # noqa: E402

pytestmark = pytest.mark.skipif(sys.platform == "darwin", reason="the file is not of the format that readelf reads")


def test_it_exports_its_entry_points_only_and_is_protected():
    assert elf.Library.read(LIBRARY).faults() == []


def test_it_needs_no_library_but_the_systems_own():
    needed = elf.Library.read(LIBRARY).needed
    # What cargo alone links has the compiler's unwinder in a library; what is published has it inside.
    assert needed - elf.GLIBC_PARTS <= {"libgcc_s.so.1"}


def test_a_library_that_must_not_be_published_is_recognised(tmp_path):
    source = tmp_path / "faulty.c"
    source.write_text('int helper(void) { return __builtin_printf("%s", __FILE__); }\nint sqlite3_extension_init(void) { return helper(); }')
    faulty = tmp_path / "faulty.so"
    subprocess.run(["cc", "-shared", "-fPIC", "-O0", "-Wl,-z,execstack,-z,norelro,-z,lazy", "-o", faulty, source], check=True)
    faults = elf.Library.read(faulty).faults_of_published("2.1")
    for expected in ("exports helper", "does not export sqlite3_litestreamvfs_init", "is not linked with now",
                     "is not linked with relro", "is not linked with nx", "is not linked with nodelete", r"needs glibc 2[.\d]+"):
        assert any(re.fullmatch(expected, fault) for fault in faults), faults
    assert elf.names(faulty, [tmp_path]) == [str(source)]
