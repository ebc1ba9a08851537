"""A stream of numbered datagrams between two pods: what is missing at the end was lost on the way."""

import socket
import threading
from typing import Self

from tests.kit.netns import udp_socket
from tests.kit.topology import Pod


class Stream:
    """Numbered datagrams from one pod to another, one per millisecond; what is missing was lost."""

    def __init__(self, sender: Pod, receiver: Pod) -> None:
        self._out = udp_socket(sender.netns, sender.ip)
        self._in = udp_socket(receiver.netns, receiver.ip)
        self._in.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
        self._target = self._in.getsockname()
        self._stop = threading.Event()
        self.sent = 0
        self.received: set[int] = set()
        self._threads = [threading.Thread(target=self._send), threading.Thread(target=self._receive)]

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def _send(self) -> None:
        while not self._stop.wait(0.001):
            self._out.sendto(self.sent.to_bytes(4, "big"), self._target)
            self.sent += 1

    def _receive(self) -> None:
        while True:
            try:
                self.received.add(int.from_bytes(self._in.recv(16), "big"))
            except TimeoutError:
                if self._stop.is_set():
                    return

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        for thread in self._threads:
            thread.join()
        self._out.close()
        self._in.close()

    @property
    def lost(self) -> set[int]:
        return set(range(self.sent)) - self.received
