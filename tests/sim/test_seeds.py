"""Schedules that once found a defect, each named after it. They stay green.

A seed names a schedule only as long as the simulation draws the same things in the same order. When it changes, look
for new ones: put the defect back, and run the simulation with the same favoured mishaps until it is found.
"""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from tests.sim import faults
from tests.sim.mutants import ALL
from tests.sim.schedule import run

SEED = 1000


@dataclass(frozen=True)
class Found:
    """`rule`: what it violated before the fix."""

    name: str
    index: int
    favour: tuple[faults.Mishap, ...]
    rule: str
    seed: int = SEED


FOUND = (
    Found("an_application_that_did_not_stop_was_never_asked_again", 861, (faults.hang_stop,), "liveness"),
    Found("a_vip_put_back_before_a_late_notify_stayed_for_ever", 66, (faults.late_notifies,), "goal"),
    Found("unmounted_while_the_application_was_being_started", 104, (faults.release, faults.stop_keepalived),
          "bare-application"),
    Found("started_while_an_unmount_from_before_a_resume_was_under_way", 3072, (faults.release,), "bare-application"),
    Found("a_master_with_a_requested_detach_never_took_its_vip_again", 2602, (faults.pull, faults.release), "goal"),
    Found("fenced_for_one_volume_while_it_released_the_other", 16, (faults.freeze, faults.throttle, faults.late_call),
          "releasing"),
    Found("fenced_mark_taken_away_on_old_facts", 2908, (faults.split, faults.late_notifies, faults.pull),
          "fenced-takes"),
    Found("stuck_attachment_detached_with_unreadable_mounts", 1592, (faults.stuck, faults.unreadable), "guess"),
    Found("a_check_of_an_earlier_take_counted_for_a_later_one", 41057, (), "unchecked", seed=2026),
    Found("a_break_between_two_looks_did_not_count_as_one", 449009, (), "fenced-takes", seed=2028),
    Found("started_again_on_the_page_cache_of_a_disk_that_was_taken", 3891, (), "lost", seed=77),
    Found("detached_while_sysfs_did_not_say_what_is_mounted", 775526, (), "detach-mounted", seed=2031),
    Found("unmounted_what_was_lost_and_so_forgot_that_it_was", 31386, (), "fenced-takes", seed=2032),
)  # fmt: skip


@pytest.mark.parametrize("found", FOUND, ids=[found.name for found in FOUND])
def test_a_defect_that_was_found_stays_away(found: Found):
    result = run(found.seed, found.index, favour=found.favour)
    assert (result.rule, result.text) == ("", "")


# Two defects sat in the hands, which the simulation models: here the old hands can be put back.
@pytest.mark.parametrize("name", ["no-rescan", "long-retry"])
def test_the_old_hands_are_still_caught_and_the_new_ones_are_not(name: str):
    mutant = next(m for m in ALL if m.name == name)
    for index in range(4000):
        if run(SEED, index, wiring=mutant.wiring, favour=mutant.favour).rule in mutant.caught_by:
            assert run(SEED, index, favour=mutant.favour).rule == ""
            return
    pytest.fail(f"{mutant.wrong}: not noticed any more")
