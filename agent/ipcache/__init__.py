"""Which identity and node an address has: merged from all sources, and made true in the kernel's maps.

`IpCache` (cache.py) is the component; merge.py the rules, target.py the way into the maps.
"""

from agent.ipcache.cache import EndpointAddress, IpCache
from agent.ipcache.merge import IpInfo, Source

__all__ = ["EndpointAddress", "IpCache", "IpInfo", "Source"]
