"""The bounded version of the long run's parts: kills and full disks."""

import os

import pytest
from small_base import small_base

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="the runs are forked")


@pytest.mark.slow
def test_no_kill_loses_or_changes_anything():
    from sparsedict.tools.soak.kills import kills
    from sparsedict.tools.soak.small_training import SmallTraining

    row = kills(15, training=SmallTraining(small_base()))
    assert row.tried >= 15 and not row.violations


@pytest.mark.slow
def test_no_full_disk_leaves_half_a_file_or_ends_a_run_for_good():
    from sparsedict.tools.soak.full_disks import full_disks
    from sparsedict.tools.soak.small_training import SmallTraining

    # The small base's files are of 8, 22 and 33 kB.
    row = full_disks(range(4, 64, 16), SmallTraining(small_base()))
    if not row.tried:
        pytest.skip(row.name)
    assert not row.violations
