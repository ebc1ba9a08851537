"""Every event accounted for, whatever the order in which numbers arrive."""

from hubble.accounting import CpuAccount, Drained, KernelCount, settle


def test_what_was_tried_before_the_last_drain_and_did_not_come_is_lost():
    account = CpuAccount(0)
    account = settle(account, Drained(stored=7, ahead=7), KernelCount(10, 3, 0))
    assert (account.stored, account.lost, account.next_seq) == (7, 0, 10)
    account = settle(account, Drained(0, 0), KernelCount(10, 3, 0))
    assert (account.stored, account.lost, account.emitted) == (7, 3, 10)


def test_a_number_taken_but_not_written_yet_is_not_lost():
    account = settle(CpuAccount(0), Drained(stored=9, ahead=9), KernelCount(10, 0, 0))
    account = settle(account, Drained(stored=1, ahead=0), KernelCount(10, 0, 0))
    assert (account.stored, account.lost) == (10, 0)


def test_a_number_that_comes_very_late_is_taken_back():
    account = settle(CpuAccount(0), Drained(stored=9, ahead=9), KernelCount(10, 0, 0))
    account = settle(account, Drained(0, 0), KernelCount(10, 0, 0))
    assert account.lost == 1
    account = settle(account, Drained(stored=1, ahead=0), KernelCount(10, 0, 0))
    assert (account.stored, account.lost, account.emitted) == (10, 0, 10)


def test_rows_ahead_of_the_last_count_are_stored_and_no_loss_is_made_of_them():
    account = settle(CpuAccount(0, stored=10, next_seq=10), Drained(stored=5, ahead=5), KernelCount(15, 0, 4))
    assert (account.stored, account.lost, account.emitted, account.suppressed) == (15, 0, 15, 4)


def test_malformed_samples_are_among_the_lost():
    account = settle(CpuAccount(0), Drained(stored=3, ahead=3, malformed=2), KernelCount(5, 0, 0))
    account = settle(account, Drained(0, 0), KernelCount(5, 0, 0))
    assert (account.malformed, account.lost, account.emitted) == (2, 2, 5)


def test_new_rows_never_hide_an_old_loss():
    account = CpuAccount(0, stored=7, lost=3, next_seq=10)
    account = settle(account, Drained(stored=5, ahead=5), KernelCount(15, 3, 0))
    assert (account.stored, account.lost, account.emitted) == (12, 3, 15)
