import pytest

from service.slow_clients import ClientLimits, SlowClients

LIMITS = ClientLimits(head_timeout_s=10, min_read_rate=100, connection_unsent=10_000, unsent=30_000)


class FakeConnection:
    """A connection whose client has read everything but `unsent` bytes."""

    timeout_keep_alive_task = None

    def __init__(self, unsent=0, is_idle=False):
        self.transport = self
        self.unsent = unsent
        self._is_idle = is_idle
        self.is_open = True

    def outstanding(self):
        return iter(() if self._is_idle else (self,))

    def get_write_buffer_size(self):
        return self.unsent

    def abort(self):
        self.is_open = False

    close = abort


def run(read_per_s, seconds, connections):
    """Let each client read, once per second, and close the slow ones."""
    slow_clients = SlowClients(LIMITS)
    for second in range(seconds):
        slow_clients.close([each for each in connections if each.is_open], float(second))
        for connection, num_bytes in zip(connections, read_per_s, strict=True):
            connection.unsent = max(0, connection.unsent - num_bytes)
    return [connection.is_open for connection in connections]


def test_client_below_the_read_rate_is_closed():
    clients = [FakeConnection(9_000), FakeConnection(9_000), FakeConnection(9_000)]
    assert run([0, 99, 101], 7, clients) == [False, False, True]


def test_client_that_stalls_later_is_closed():
    client = FakeConnection(9_000)
    slow_clients = SlowClients(LIMITS)
    for second in range(20):
        slow_clients.close([client], float(second))
        client.unsent -= 500 if second < 6 else 0
        if not client.is_open:
            break
    assert not client.is_open
    assert second > 6


def test_client_of_a_continued_response_is_measured():
    """A response is continued when the client has read most of it: sizes go up and down."""
    client, slow_clients = FakeConnection(2_000), SlowClients(LIMITS)
    for second in range(30):
        slow_clients.close([client], float(second))
        client.unsent = [2_000, 1_500, 1_000, 500][second % 4]
    assert client.is_open


@pytest.mark.parametrize(("seconds", "is_open"), [(5, True), (6, False)])
def test_unread_bytes_of_a_connection_are_limited(seconds, is_open):
    assert run([1_000], seconds, [FakeConnection(20_000)]) == [is_open]


def test_slowest_are_closed_above_the_limit_of_all():
    clients = [FakeConnection(9_500) for _ in range(4)]
    assert run([300, 200, 400, 500], 3, clients) == [True, False, True, True]


def test_fast_client_of_a_huge_response_is_not_closed():
    assert run([100_000], 3, [FakeConnection(100_000)]) == [True]


@pytest.mark.parametrize(("seconds", "is_open"), [(11, True), (12, False)])
def test_connection_without_head_is_closed(seconds, is_open):
    assert run([0], seconds, [FakeConnection(is_idle=True)]) == [is_open]
