"""The set-up in a bare Debian, see fresh_machine.sh."""

from __future__ import annotations

import os
import shutil
import subprocess

import pytest

from places import REPOSITORY


def test_a_machine_with_nothing_on_it_is_set_up_and_plans_the_demo() -> None:
    if os.environ.get("HYDROPS_TEST_FRESH") != "1":
        pytest.skip("takes minutes and a network: `make test-fresh`")
    if os.geteuid() != 0:
        pytest.skip("debootstrap needs root")
    if shutil.which("debootstrap") is None and shutil.which("apt-get") is None:
        pytest.skip("debootstrap is neither here nor to be installed by apt-get")
    done = subprocess.run(
        [str(REPOSITORY / "tests" / "fresh_machine.sh")],
        capture_output=True,
        text=True,
        check=False,
    )
    said = done.stdout + done.stderr
    assert done.returncode == 0, said[-4000:]
    assert "paired_unet3d-" in said
    assert "ingest_session" in said
