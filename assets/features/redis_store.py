"""Feast's online store in Redis, with Evergreen's client: Feast's own takes the password from its configuration."""

from typing import Any, Literal

from feast.infra.online_stores.redis import RedisOnlineStore, RedisOnlineStoreConfig
from pydantic import StrictStr

from assets.features.redis_client import redis_of

__all__ = ["SharedRedisOnlineStore", "SharedRedisOnlineStoreConfig"]


_Type = Literal["assets.features.redis_store.SharedRedisOnlineStore"]


class SharedRedisOnlineStoreConfig(RedisOnlineStoreConfig):
    """The configuration: where Redis is."""

    type: _Type = "assets.features.redis_store.SharedRedisOnlineStore"  # type: ignore[assignment]
    url: StrictStr
    skip_dedup: bool = True
    """A fill has one row for a key, so that none has to be compared with what is there."""


class SharedRedisOnlineStore(RedisOnlineStore):
    """Feast's store."""

    def _get_client(self, online_store_config: RedisOnlineStoreConfig) -> Any:
        assert isinstance(online_store_config, SharedRedisOnlineStoreConfig)
        return redis_of(online_store_config.url)
