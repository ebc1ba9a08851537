"""The questions that are asked of a node: equal ones have one feed, those of one field mask one builder.

Kept only while somebody asks. Input: requests; output: queries and feeds (`hubble.flowfeed`).
"""

from collections.abc import Sequence
from dataclasses import replace
from weakref import WeakValueDictionary

from hubble.flowbuilder import FlowBuilder
from hubble.flowfeed import FlowFeed, SharedBuilder
from hubble.flowquery import FlowQuery, compile_query
from hubble.flowsource import FlowSource
from hubble.flowuuid import StoreId
from hubble.observingnode import ObservingNode
from palomar.clock import Clock
from palomar_pb.observer import observer_pb2


class FlowFeeds:
    """Feeds of one source."""

    def __init__(self, source: FlowSource, node: ObservingNode, clock: Clock) -> None:
        """`node` is the one that flows say they were seen by."""
        self.source = source
        self.clock = clock
        self._node = node
        self._feeds: WeakValueDictionary[tuple[int, bytes], FlowFeed] = WeakValueDictionary()
        self._builders: WeakValueDictionary[tuple[int, str], SharedBuilder] = WeakValueDictionary()

    def ask(self, request: observer_pb2.GetFlowsRequest) -> tuple[FlowQuery, FlowFeed]:
        """Compile `request`, and find or make the feed of what it asks of the store as it is now.

        Raises InvalidInputError, and StoreMissingError or StoreDamagedError while there is no store.
        """
        store = self.source.store()
        self.source.names.refresh()
        node = replace(self._node, store_id=StoreId(store.store_id))
        query = compile_query(request, node)
        key = (store.store_id, _question(request))
        feed = self._feeds.get(key)
        if feed is None:
            builder = self._builder(node, query)
            feed = FlowFeed(store, self.source.names, query, builder, node.name, self.clock)
            self._feeds[key] = feed
        return query, feed

    def _builder(self, node: ObservingNode, query: FlowQuery) -> SharedBuilder:
        key = (node.store_id, str(query.mask))
        builder = self._builders.get(key)
        if builder is None:
            names = self.source.names
            builder = SharedBuilder(FlowBuilder(node, names, query.mask), names)
            self._builders[key] = builder
        return builder

    def waiting(self) -> Sequence[FlowFeed]:
        """Feeds of which somebody waits for what comes."""
        return [feed for feed in self._feeds.values() if feed.waiting]


def _question(request: observer_pb2.GetFlowsRequest) -> bytes:
    """`request` without the fields that say where its answer begins and ends, not what is in it."""
    question = observer_pb2.GetFlowsRequest()
    question.CopyFrom(request)
    question.ClearField("number")
    question.ClearField("first")
    question.ClearField("follow")
    return question.SerializeToString(deterministic=True)
