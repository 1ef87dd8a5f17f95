"""A configuration for LMCache, which keeps in Redis what vLLM computes: vLLM writes no state files of its own.

Source: LMCache's docs (storage backends, Redis; configuration reference) and its `lmcache/v1/config.py`.
"""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

__all__ = ["lmcache_config"]

_HEAD = """\
# LMCache: attention KV that vLLM computes, kept in Redis for every replica and over restarts.
#   LMCACHE_CONFIG_FILE=lmcache.yaml PYTHONHASHSEED=0 vllm serve MODEL --enable-prefix-caching \\
#     --kv-transfer-config '{"kv_connector": "LMCacheConnectorV1", "kv_role": "kv_both"}'
# PYTHONHASHSEED has to be the same everywhere: keys are hashes, and differ without it, so nothing is ever found.
# LMCache removes nothing from Redis and lets nothing expire. Give it a server of its own:
#   redis-server --maxmemory 32gb --maxmemory-policy allkeys-lru --save ""
"""

_BODY = """\
chunk_size: 256
local_cpu: true
max_local_cpu_size: 5.0
remote_url: "{url}"
remote_serde: "naive"
save_decode_cache: false
"""


def lmcache_config(redis_url: str) -> str:
    """YAML for LMCACHE_CONFIG_FILE; a login in the address is left out, with a word on it.

    Replies are not kept (`save_decode_cache`): what follows a chunk's reading prefix differs from call to call.
    """
    parts = urlsplit(redis_url)
    login, _, host = parts.netloc.rpartition("@")
    word = "# The address's user and password are left out: put them in where only vLLM reads this.\n" if login else ""
    return _HEAD + word + _BODY.format(url=urlunsplit(parts._replace(netloc=host)))
